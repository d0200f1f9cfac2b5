//! Answers of real servers, and hostile ones.

use super::*;
use futures_util::stream;

type Chunk = std::result::Result<Bytes, std::io::Error>;

async fn parse_in(text: &str, chunk: usize) -> Result<Vec<Response>> {
    let chunks: Vec<Chunk> = text.as_bytes().chunks(chunk).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    let mut found = Vec::new();
    multistatus(stream::iter(chunks), |response| found.push(response)).await?;
    Ok(found)
}

async fn parse(text: &str) -> Vec<Response> {
    let whole = parse_in(text, text.len()).await.unwrap();
    assert_eq!(parse_in(text, 1).await.unwrap(), whole, "chunks must not matter");
    whole
}

const APACHE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/" xmlns:g0="urn:fourwheel:attributes">
<D:href>/dav/</D:href>
<D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype>
<lp1:getlastmodified>Mon, 02 Jan 2006 15:04:05 GMT</lp1:getlastmodified><lp1:getetag>"1000-5"</lp1:getetag></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat>
<D:propstat><D:prop><g0:mode/><D:quota-available-bytes/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>
</D:response>
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/" xmlns:g0="urn:fourwheel:attributes">
<D:href>/dav/a%20%26%20b.txt</D:href>
<D:propstat><D:prop><lp1:resourcetype/><lp1:getcontentlength>12</lp1:getcontentlength>
<lp1:getetag>W/"c-62"</lp1:getetag><lp2:executable>T</lp2:executable><g0:mode>640</g0:mode>
<g0:xattrs>{&quot;user.a&quot;:&quot;&#89;Q==&quot;}</g0:xattrs></D:prop>
<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>
</D:multistatus>"#;

#[tokio::test]
async fn apache_is_understood() {
    let found = parse(APACHE).await;
    assert_eq!(found.len(), 2);
    let (root, file) = (&found[0], &found[1]);
    assert!(root.props.collection && root.found && root.failed.is_none() && root.props.mode.is_none());
    assert_eq!(root.props.modified_ns, Some(1_136_214_245_000_000_000));
    assert_eq!(file.href, "/dav/a%20%26%20b.txt");
    assert!(!file.props.collection);
    assert_eq!((file.props.length, file.props.etag.as_deref()), (Some(12), Some("W/\"c-62\"")));
    assert_eq!((file.props.mode.as_deref(), file.props.executable), (Some("640"), Some(true)));
    assert_eq!(file.props.xattrs.as_deref(), Some("{\"user.a\":\"YQ==\"}"));
}

const NEXTCLOUD: &str = r#"<?xml version="1.0"?>
<d:multistatus xmlns:d="DAV:" xmlns:s="http://sabredav.org/ns" xmlns:oc="http://owncloud.org/ns" xmlns:nc="http://nextcloud.org/ns">
<d:response><d:href>/remote.php/dav/files/ann/</d:href><d:propstat><d:prop><d:resourcetype><d:collection/></d:resourcetype>
<d:getlastmodified>Tue, 12 Mar 2024 10:00:00 GMT</d:getlastmodified><d:getetag>&quot;65f02a&quot;</d:getetag>
<d:quota-available-bytes>-3</d:quota-available-bytes><d:quota-used-bytes>1234</d:quota-used-bytes><oc:fileid>7</oc:fileid>
</d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat><d:propstat><d:prop><d:getcontentlength/><oc:checksums/></d:prop>
<d:status>HTTP/1.1 404 Not Found</d:status></d:propstat></d:response>
<d:response><d:href>https://cloud.example/remote.php/dav/files/ann/x.bin</d:href><d:propstat><d:prop><d:resourcetype/>
<d:getcontentlength>3</d:getcontentlength><d:getetag>"abc"</d:getetag><oc:fileid>8</oc:fileid>
<oc:checksums><oc:checksum>SHA1:00 MD5:11</oc:checksum></oc:checksums></d:prop><d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response>
</d:multistatus>"#;

#[tokio::test]
async fn nextcloud_is_understood() {
    let found = parse(NEXTCLOUD).await;
    let (root, file) = (&found[0].props, &found[1].props);
    assert_eq!((root.quota_available, root.quota_used), (None, Some(1234)));
    assert_eq!((root.etag.as_deref(), root.file_id.as_deref()), (Some("\"65f02a\""), Some("7")));
    assert_eq!(file.checksums.as_deref(), Some("SHA1:00 MD5:11"));
    assert_eq!(found[1].href, "https://cloud.example/remote.php/dav/files/ann/x.bin");
}

#[tokio::test]
async fn nginx_and_default_namespaces_are_understood() {
    let text = r#"<?xml version="1.0" encoding="utf-8" ?><multistatus xmlns="DAV:"><response><href>/a</href><propstat><prop>
        <getcontentlength>5</getcontentlength><getlastmodified>2006-01-02T15:04:05Z</getlastmodified><resourcetype></resourcetype>
        </prop><status>HTTP/1.1 200 OK</status></propstat></response></multistatus>"#;
    let found = parse(text).await;
    assert_eq!((found[0].props.length, found[0].props.modified_ns), (Some(5), Some(1_136_214_245_000_000_000)));
}

#[tokio::test]
async fn a_prefix_means_nothing_and_another_namespace_is_another_property() {
    let text = r#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/a</D:href><D:propstat><D:prop xmlns:D2="urn:x">
        <D2:getcontentlength>9</D2:getcontentlength><D2:resourcetype><D2:collection/></D2:resourcetype></D:prop></D:propstat></D:response></D:multistatus>"#;
    let found = parse(text).await;
    assert_eq!((found[0].props.length, found[0].props.collection, found[0].found), (None, false, true));
}

#[tokio::test]
async fn statuses_of_whole_responses_and_failed_properties_are_told() {
    let text = r#"<D:multistatus xmlns:D="DAV:"><D:response><D:href>/gone</D:href><D:status>HTTP/1.1 423 Locked</D:status></D:response>
        <D:response><D:href>/a</D:href><D:propstat><D:prop/><D:status>HTTP/1.1 403 Forbidden</D:status></D:propstat></D:response></D:multistatus>"#;
    let found = parse(text).await;
    assert_eq!((found[0].status, found[1].status, found[1].failed), (Some(423), None, Some(403)));
}

#[tokio::test]
async fn an_answer_that_ends_early_is_no_answer() {
    for length in 1..APACHE.len() {
        let error = parse_in(&APACHE[..length], 64).await.unwrap_err();
        assert!(matches!(error.kind, Kind::Unavailable | Kind::Corrupt), "{length}: {error}");
    }
    let cut = APACHE.find("</D:response>").unwrap() + 13;
    assert_eq!(parse_in(&APACHE[..cut], 64).await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test]
async fn hostile_answers_are_refused_without_harm() {
    let open = "<D:multistatus xmlns:D=\"DAV:\">";
    let cases = [
        "<html><body>sign in</body></html>".to_owned(),
        "not xml at all".to_owned(),
        String::new(),
        "<!DOCTYPE x [<!ENTITY a \"b\">]><D:multistatus xmlns:D=\"DAV:\"/>".to_owned(),
        format!("{open}{}", "<a>".repeat(100_000)),
        format!("{open}<D:response><D:href>{}", "x".repeat(3 << 20)),
        format!("{open}<{}", "x".repeat(3 << 20)),
        format!("{open}<a {}", "x='1' ".repeat(1 << 19)),
        format!("{open}</D:response>"),
    ];
    for text in cases {
        let error = parse_in(&text, 4096).await.unwrap_err();
        assert!(matches!(error.kind, Kind::Corrupt | Kind::Unavailable), "{error}");
    }
    let bytes: Vec<Chunk> = vec![Ok(Bytes::from_static(b"<a>\xff\xfe\x00</a>"))];
    assert!(multistatus(stream::iter(bytes), |_| {}).await.is_err());
    let broken: Vec<Chunk> = vec![Ok(Bytes::from(open.to_owned())), Err(std::io::Error::other("reset"))];
    assert_eq!(multistatus(stream::iter(broken), |_| {}).await.unwrap_err().kind, Kind::Unavailable);
}

#[tokio::test]
async fn fifty_thousand_children_come_one_by_one() {
    let mut text = String::from("<D:multistatus xmlns:D=\"DAV:\">");
    for at in 0..50_000 {
        text.push_str(&format!(
            "<D:response><D:href>/d/{at}</D:href><D:propstat><D:prop><D:resourcetype/></D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        ));
    }
    text.push_str("</D:multistatus>");
    assert_eq!(parse_in(&text, 16 << 10).await.unwrap().len(), 50_000);
}
