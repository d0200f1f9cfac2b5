//! Finding out what a server does, in a directory of our own that is removed afterwards. Nothing of the user's is touched,
//! and nothing is tried that could destroy: whether a cut PUT is harmless is decided by what the server is.

use super::list;
use super::meta;
use super::names;
use super::probe::{Destination, Probed, RISKY};
use super::props::{Props, Tag, quoted};
use super::request::{Call, Content, Link};
use super::wire::Response;
use super::{Flavor, address, dates, errors, upload};
use crate::error::{Error, Kind, Result, Retry};
use crate::model::{Meta, RemotePath, Version};
use crate::remote::Source;
use crate::sys::Chance;
use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderName, LAST_MODIFIED};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// A time that no server sets by itself: 2001-09-09, whole seconds.
const MARK_NS: i64 = 1_000_000_000 * 1_000_000_000;
/// Sizes of dead properties that are tried, bytes. Servers that keep them in SDBM files stop below 1 KiB.
const PROPERTY_BYTES: [usize; 3] = [48 << 10, 3 << 10, 500];
/// Longer than a tick of a server's kernel, which stamps its files, and far below a second.
const FINE_TAG: Duration = Duration::from_millis(20);
const STRONG_POLL: Duration = Duration::from_millis(200);
const STRONG_POLLS_MAX: usize = 15;

struct Text(&'static str);

impl Source for Text {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let range = range.start as usize..range.end as usize;
        Ok(Bytes::from_static(&self.0.as_bytes()[range]))
    }
}

/// Looks at the root and says what the server is. Writes nothing.
///
/// `NotFound`: there is no such collection. `NotDirectory`: it is a file.
pub(super) async fn identify(link: &Link, forced: Option<Flavor>) -> Result<Probed> {
    let path = link.address.path(&RemotePath::root(), true);
    let doing = format!("open {}{path}", link.address.own());
    let call = Call::new("OPTIONS", path.clone(), &doing);
    let options = link.send(&call).await?;
    let header = |name: &str| -> String {
        let values = options.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(", ")
    };
    let (server, dav) = (header("server"), header("dav"));
    errors::page(options).await;
    let Some((href, props)) = list::props(link, path, &doing).await? else {
        return Err(Error::new(Kind::NotFound, format!("{doing}: it is not there")));
    };
    if !props.collection {
        return Err(Error::new(Kind::NotDirectory, format!("{doing}: it is a file")));
    }
    Ok(Probed {
        server: format!("{server} DAV: {dav}"),
        flavor: forced.unwrap_or_else(|| flavor(&server, &dav, &props)),
        root: address::href_segments(&href).unwrap_or_else(|_| link.address.root().to_vec()),
        ids: props.file_id.is_some(),
        quota: props.quota_available.is_some() || props.quota_used.is_some(),
        ..Probed::default()
    })
}

/// What the server is. A name in `Server` may be that of a proxy, so each needs a second sign of its own module.
fn flavor(server: &str, dav: &str, root: &Props) -> Flavor {
    let server = server.to_ascii_lowercase();
    if root.file_id.is_some() {
        // DAV classes of Nextcloud's and ownCloud's own plugins.
        return if dav.contains("nextcloud") || dav.contains("nc-") { Flavor::Nextcloud } else { Flavor::OwnCloud };
    }
    if dav.contains("http://apache.org/dav/propset/fs") {
        return Flavor::Apache;
    }
    if server.starts_with("lighttpd") && dav.contains("1,2,3") {
        return Flavor::Lighttpd;
    }
    // nginx is told by the form of its etags, on the first file (see `is_nginx_tag`).
    Flavor::Other
}

/// A sandbox on the server.
struct Sandbox<'a> {
    link: &'a Link,
    directory: RemotePath,
}

impl Sandbox<'_> {
    fn path(&self, name: &str) -> String {
        let path = name.split('/').fold(self.directory.clone(), |path, name| path.join(name));
        self.link.address.path(&path, false)
    }

    /// Sends a request; gives its status. An answer that says "later" is an error, since nothing can be learnt from it.
    async fn send(&self, call: &Call<'_>) -> Result<u16> {
        let response = self.link.send(call).await?;
        let status = response.status().as_u16();
        let page = errors::page(response).await;
        let kind = errors::kind(call.method, status, &page);
        if matches!(status, 429 | 502 | 503 | 504) && kind.retry() == Retry::Later && call.method != "MOVE" {
            return Err(Error::new(kind, format!("{}: status {status}", call.doing)));
        }
        Ok(status)
    }

    async fn put(&self, name: &str, text: &'static str, headers: &[(&'static str, String)]) -> Result<bool> {
        let text = Text(text);
        let size = text.size();
        let mut call =
            Call::new("PUT", self.path(name), "probe a write").content(Content::Source(Arc::new(text), 0..size));
        call.headers.extend_from_slice(headers);
        Ok((200..300).contains(&self.send(&call).await?))
    }

    async fn make(&self, name: &str) -> Result<u16> {
        let path = format!("{}/", self.path(name).trim_end_matches('/'));
        self.send(&Call::new("MKCOL", path, "probe a directory")).await
    }

    async fn props(&self, name: &str) -> Result<Option<Props>> {
        Ok(list::props(self.link, self.path(name), "probe a look").await?.map(|(_, props)| props))
    }

    /// Whether a file's etag is its time and size in hexadecimal, which nginx makes (ngx_http_set_etag) and no server behind
    /// an nginx does. Its listings give none.
    async fn has_nginx_tag(&self, name: &str) -> Result<bool> {
        let call = Call::new("HEAD", self.path(name), "probe a tag");
        let response = self.link.send(&call).await?;
        let header = |name: HeaderName| response.headers().get(name)?.to_str().ok();
        let modified = header(LAST_MODIFIED).and_then(dates::parse);
        let size = header(CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let (Some(modified), Some(size)) = (modified, size) else { return Ok(false) };
        let expected = format!("{:x}-{size:x}", modified / 1_000_000_000);
        Ok(header(ETAG).and_then(Tag::parse).is_some_and(|tag| tag.version.as_str() == expected))
    }

    async fn tag(&self, name: &str) -> Result<Option<Version>> {
        Ok(self.props(name).await?.and_then(|props| Some(Tag::parse(props.etag.as_deref()?)?.version)))
    }

    async fn size(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.props(name).await?.and_then(|props| props.length))
    }

    /// Whether a listing of the sandbox tells of `name`.
    async fn lists(&self, name: &str) -> Result<bool> {
        let directory = self.link.address.path(&self.directory, true);
        let mut found = false;
        let each = |response: Response| {
            found |=
                address::href_segments(&response.href).is_ok_and(|parts| parts.last().is_some_and(|last| last == name));
        };
        list::propfind(self.link, directory, list::Depth::One, "probe a listing", each).await?;
        Ok(found)
    }

    /// Whether a file can be moved to `name`, which some servers take apart though it is escaped.
    async fn takes(&self, name: &str, form: Destination) -> Result<bool> {
        self.put("m", "move", &[]).await?;
        self.transfer("MOVE", "m", name, form, &[("overwrite", "T".into())]).await?;
        Ok(self.size(name).await?.is_some())
    }

    async fn proppatch(&self, name: &str, body: String) -> Result<bool> {
        let call = Call::new("PROPPATCH", self.path(name), "probe a property").content(Content::Xml(body));
        Ok((200..300).contains(&self.send(&call).await?))
    }

    async fn transfer(
        &self,
        method: &'static str,
        from: &str,
        to: &str,
        form: Destination,
        more: &[(&'static str, String)],
    ) -> Result<u16> {
        let destination = self.link.address.destination(&self.path(to), form);
        let mut call = Call::new(method, self.path(from), "probe a move").with("destination", destination);
        call.headers.extend_from_slice(more);
        self.send(&call).await
    }
}

/// Tries what the server does. A server that lets us write nothing keeps the worst case.
pub(super) async fn probe(link: &Link, chance: &dyn Chance, probed: &mut Probed) -> Result<()> {
    let directory = RemotePath::root().join(&names::temporary(chance));
    let sandbox = Sandbox { link, directory };
    match sandbox.make("").await? {
        200..=299 => {}
        status => {
            tracing::warn!(status, "no directory can be made in the root; the server's abilities stay unknown");
            return Ok(());
        }
    }
    let tried = run(&sandbox, probed).await;
    upload::remove_quietly(link, link.address.path(&sandbox.directory, true)).await;
    tried
}

async fn run(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    let time = ("x-oc-mtime", meta::seconds(MARK_NS));
    if !sandbox.put("a", "one", &[time]).await? {
        tracing::warn!("no file can be written into the root; the server's abilities stay unknown");
        return Ok(());
    }
    let Some(props) = sandbox.props("a").await? else {
        return Err(Error::new(Kind::Unavailable, "probe the server: a file was taken, and is not there"));
    };
    probed.mtime_with_upload = props.modified_ns == Some(MARK_NS);
    if probed.flavor == Flavor::Other
        && probed.server.to_ascii_lowercase().starts_with("nginx")
        && sandbox.has_nginx_tag("a").await?
    {
        probed.flavor = Flavor::Nginx;
    }
    tags(sandbox, probed).await?;
    conditions(sandbox, probed).await?;
    moves(sandbox, probed).await?;
    properties(sandbox, probed).await?;
    tree(sandbox, probed).await
}

/// Whether tags tell apart what is written within a second.
async fn tags(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    probed.coarse_tags = probed.flavor == Flavor::Nginx;
    let mut last = None;
    // Three writes at once: of any three within two seconds, two are within one.
    for text in ["two", "six", "ten"] {
        // Tags as fine as the server's files are fine enough.
        tokio::time::sleep(FINE_TAG).await;
        sandbox.put("t", text, &[]).await?;
        let tag = sandbox.tag("t").await?;
        probed.coarse_tags |= tag.is_none() || tag == last;
        last = tag;
    }
    Ok(())
}

/// Which conditions keep what is there. Sizes tell the contents apart: one has 3 bytes, the intruder 8.
async fn conditions(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    let kept = |taken: bool, size: Option<u64>| !taken && size == Some(3);
    let taken = sandbox.put("a", "intruder", &[("if-none-match", "*".into())]).await?;
    probed.conditional_create = kept(taken, sandbox.size("a").await?);
    sandbox.put("a", "one", &[]).await?;

    let wrong = ("if-match", "\"fourwheel-wrong\"".to_owned());
    let taken = sandbox.put("a", "intruder", std::slice::from_ref(&wrong)).await?;
    let keeps = kept(taken, sandbox.size("a").await?);
    if !keeps {
        sandbox.put("a", "one", &[]).await?;
    }
    let delete = Call::new("DELETE", sandbox.path("a"), "probe a removal").with(wrong.0, wrong.1);
    sandbox.send(&delete).await?;
    probed.conditional_remove = sandbox.size("a").await?.is_some();
    if !probed.conditional_remove {
        sandbox.put("a", "one", &[]).await?;
    }
    let Some(right) = right_tag(sandbox, "a").await? else {
        probed.conditional_remove = false;
        return Ok(());
    };
    let passes = sandbox.put("a", "one", &[("if-match", right)]).await?;
    probed.conditional_replace = keeps && passes;
    probed.conditional_remove &= passes;
    Ok(())
}

/// The tag of a file in quotes, once it is strong.
async fn right_tag(sandbox: &Sandbox<'_>, name: &str) -> Result<Option<String>> {
    for _ in 0..STRONG_POLLS_MAX {
        let Some(tag) = sandbox.props(name).await?.and_then(|props| Tag::parse(props.etag.as_deref()?)) else {
            return Ok(None);
        };
        if !tag.weak {
            return Ok(quoted(&tag.version));
        }
        tokio::time::sleep(STRONG_POLL).await;
    }
    Ok(None)
}

/// How a move's target is named, and what keeps it.
async fn moves(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    sandbox.put("m", "move", &[]).await?;
    let forms = [Destination::Own, Destination::OtherScheme, Destination::Target, Destination::Path];
    let mut found = None;
    for form in forms {
        let status = sandbox.transfer("MOVE", "m", "n", form, &[("overwrite", "T".into())]).await?;
        if (200..300).contains(&status) && sandbox.size("n").await?.is_some() {
            found = Some(form);
            break;
        }
    }
    let Some(form) = found else {
        return Err(Error::new(Kind::Unsupported, "probe the server: it does not move files"));
    };
    probed.destination = form;
    for (bit, c) in RISKY.into_iter().enumerate() {
        probed.loses |= u8::from(!sandbox.takes(&format!("p{c}41"), form).await?) << bit;
    }
    probed.loses_control = !sandbox.takes("p\u{1}\t\n\u{7f}41", form).await?;
    // A is 3 bytes, N is 4.
    sandbox.transfer("MOVE", "a", "n", form, &[("overwrite", "F".into())]).await?;
    probed.keeps_target = sandbox.size("n").await? == Some(4) && sandbox.size("a").await? == Some(3);
    sandbox.put("a", "one", &[]).await?;
    sandbox.put("n", "move", &[]).await?;
    probed.copy = (200..300).contains(&sandbox.transfer("COPY", "a", "c", form, &[]).await?)
        && sandbox.size("c").await? == Some(3);
    tagged(sandbox, probed).await
}

/// Whether a tagged If header speaks for the target (RFC 4918, 10.4).
async fn tagged(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    let destination = sandbox.link.address.destination(&sandbox.path("n"), probed.destination);
    let condition = |tag: &str| ("if", format!("<{destination}> ([{tag}])"));
    let wrong = condition("\"fourwheel-wrong\"");
    sandbox.transfer("MOVE", "a", "n", probed.destination, &[("overwrite", "T".into()), wrong]).await?;
    if sandbox.size("n").await? != Some(4) || sandbox.size("a").await? != Some(3) {
        sandbox.put("a", "one", &[]).await?;
        return Ok(());
    }
    let Some(right) = right_tag(sandbox, "n").await? else { return Ok(()) };
    let right = condition(&right);
    sandbox.transfer("MOVE", "a", "n", probed.destination, &[("overwrite", "T".into()), right]).await?;
    probed.tagged_conditions = sandbox.size("n").await? == Some(3);
    sandbox.put("a", "one", &[]).await?;
    Ok(())
}

/// Which attributes stay. An answer of success says nothing (Apache takes `lastmodified` and changes no time), so all is
/// read back.
async fn properties(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    sandbox.proppatch("a", meta::update_native_time(MARK_NS + 1_000_000_000)).await?;
    let time = sandbox.props("a").await?.and_then(|props| props.modified_ns);
    probed.mtime_alone = time == Some(MARK_NS + 1_000_000_000);
    probed.executable = probed.flavor == Flavor::Apache;
    for bytes in PROPERTY_BYTES {
        if keeps_property(sandbox, "a", bytes, probed).await? {
            probed.property_bytes = bytes;
            break;
        }
        if probed.executable {
            probed.executable = false;
            if keeps_property(sandbox, "a", bytes, probed).await? {
                probed.property_bytes = bytes;
                break;
            }
            probed.executable = true;
        }
    }
    probed.executable &= probed.has_properties();
    if probed.has_properties() {
        sandbox.make("d").await?;
        probed.directory_properties = keeps_property(sandbox, "d", 100, probed).await?;
    }
    Ok(())
}

async fn keeps_property(sandbox: &Sandbox<'_>, name: &str, bytes: usize, probed: &Probed) -> Result<bool> {
    // In base64, and with what surrounds it, about `bytes`.
    let value = vec![b'x'; bytes / 4 * 3 - 60];
    let wanted =
        Meta { mode: Some(0o640), mtime_ns: None, xattrs: Some(BTreeMap::from([("user.probe".to_owned(), value)])) };
    let directory = name == "d";
    if !sandbox.proppatch(name, meta::update(&wanted, None, directory, probed)).await? {
        return Ok(false);
    }
    let able = Probed { property_bytes: bytes, ..Probed::default() };
    let read = sandbox.props(name).await?.map(|props| meta::read(&props, None, &able));
    Ok(read.is_some_and(|read| read.mode == wanted.mode && read.xattrs == wanted.xattrs))
}

/// What holds for directories: parents, deep answers, tags that tell of changes below, case.
async fn tree(sandbox: &Sandbox<'_>, probed: &mut Probed) -> Result<()> {
    probed.makes_parents = sandbox.put("missing1/x", "one", &[]).await?;
    probed.makes_parents |= (200..300).contains(&sandbox.make("missing2/x").await?);
    let status = sandbox.transfer("MOVE", "t", "missing3/x", probed.destination, &[("overwrite", "F".into())]).await?;
    probed.makes_parents |= (200..300).contains(&status);
    probed.case_sensitive = sandbox.props("A").await?.is_none();
    sandbox.make("d").await?;
    // What is refused now was made a moment ago.
    probed.conditional_mkdir = !(200..300).contains(&sandbox.make("d").await?);
    sandbox.put("d/e", "one", &[]).await?;
    let directory = sandbox.link.address.path(&sandbox.directory, true);
    for name in [".p", "..p"] {
        probed.hides_dots |= sandbox.put(name, "one", &[]).await? && !sandbox.lists(name).await?;
    }
    probed.deep = list::sees_grandchildren(sandbox.link, directory, probed).await?;
    let before = (sandbox.tag("").await?, sandbox.tag("").await?);
    sandbox.put("d/f", "one", &[]).await?;
    let after = sandbox.tag("").await?;
    probed.tree_tags = before.0.is_some() && before.0 == before.1 && after.is_some() && after != before.0;
    if matches!(probed.flavor, Flavor::Nextcloud | Flavor::OwnCloud) {
        super::chunked::probe(sandbox.link, probed).await?;
    }
    Ok(())
}
