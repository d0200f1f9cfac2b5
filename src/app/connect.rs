//! From a drive's settings to its remote, without asking the network where the state remembers what was found out.

use crate::config::{Drive, RemoteSpec, S3Credentials, S3Spec, SignIn, WebDavSpec};
use crate::error::{Error, Kind, Result};
use crate::remote::folder::Folder;
use crate::remote::layers::{Settings, stack};
use crate::remote::memory::{self, Memory};
use crate::remote::s3::{self, S3Options};
use crate::remote::webdav::{WebDav, WebDavOptions};
use crate::remote::{Meter, Remote};
use crate::store::Store;
use crate::sys::{Chance, Clock};
use std::sync::Arc;

/// The fact under which the store keeps what was found out about a server.
const PROBED: &str = "probed";

/// A remote in its layers.
pub struct Connected {
    pub remote: Arc<dyn Remote>,
    pub meter: Arc<Meter>,
}

/// Makes the remote of a drive.
///
/// A drive that was mounted before starts at once, offline too. The first mount asks the server: `SignIn`, `NotFound`,
/// `Offline`, `TimedOut` and others say why there can be none.
pub async fn connect(
    drive: &Drive,
    store: &Store,
    clock: &Arc<dyn Clock>,
    chance: &Arc<dyn Chance>,
) -> Result<Connected> {
    let saved = store.read(|rows| rows.fact(PROBED))?;
    let remote = match &drive.remote {
        RemoteSpec::Memory => Ok(Arc::new(Memory::new(memory::everything(), clock.clone())) as Arc<dyn Remote>),
        RemoteSpec::Folder(folder) => Folder::connect(&folder.path, clock.clone(), chance.clone())
            .map(|folder| Arc::new(folder) as Arc<dyn Remote>),
        RemoteSpec::WebDav(spec) => webdav(spec, drive, saved.as_deref(), store, clock, chance).await,
        RemoteSpec::S3(spec) => bucket(spec, drive, saved.as_deref(), store, clock, chance).await,
    }
    .map_err(|error| advised(&error, drive))?;
    // The planner repeats what fails, after looking at the views again; so a call gives up soon, and none holds a worker long.
    let stack = stack(remote, clock.clone(), chance.clone(), &Settings::default());
    Ok(Connected { remote: stack.foreground, meter: stack.meter })
}

/// Why there can be no remote, of which drive, and what to do about it.
fn advised(error: &Error, drive: &Drive) -> Error {
    let advice = match error.kind {
        Kind::Offline | Kind::TimedOut => {
            "the server cannot be reached: check the address and the network, and mount again"
        }
        Kind::Throttled | Kind::Unavailable => "the server fails now: mount again later",
        Kind::NotFound => "no such folder or bucket: make it there, or correct the drive's settings",
        Kind::SignIn => "correct the drive's user, password or keys, and mount again",
        Kind::Denied => "the account may not do this: ask for access, or set read_only = true",
        _ => "correct the drive's settings, and mount again",
    };
    Error::new(error.kind, format!("{}: {error}; {advice}", drive.remote.describe()))
}

async fn webdav(
    spec: &WebDavSpec,
    drive: &Drive,
    saved: Option<&str>,
    store: &Store,
    clock: &Arc<dyn Clock>,
    chance: &Arc<dyn Chance>,
) -> Result<Arc<dyn Remote>> {
    let (user, password, bearer) = match &spec.sign_in {
        SignIn::Nobody => (String::new(), String::new(), None),
        SignIn::User { user, password } => (user.clone(), password.get()?.expose().to_owned(), None),
        SignIn::Bearer(token) => (String::new(), String::new(), Some(token.expose().to_owned())),
    };
    let options = WebDavOptions {
        url: spec.url.clone(),
        user,
        password,
        bearer,
        endpoint: spec.http.endpoint.clone(),
        ca_file: spec.http.ca_file.clone(),
        flavor: None,
        read_only: drive.settings.read_only,
    };
    if let Some(saved) = saved {
        match WebDav::from_saved(options.clone(), saved, clock.clone(), chance.clone()) {
            Ok(remote) => return Ok(remote),
            Err(e) => tracing::warn!("what was known of the server is of no use: {e}"),
        }
    }
    let remote = WebDav::connect(options, clock.clone(), chance.clone()).await?;
    if !drive.settings.read_only {
        let text = remote.probe_text();
        store.write(|tx| tx.set_fact(PROBED, &text))?;
    }
    Ok(remote)
}

async fn bucket(
    spec: &S3Spec,
    drive: &Drive,
    saved: Option<&str>,
    store: &Store,
    clock: &Arc<dyn Clock>,
    chance: &Arc<dyn Chance>,
) -> Result<Arc<dyn Remote>> {
    let mut options = S3Options {
        endpoint: spec.http.endpoint.clone().or_else(|| spec.endpoint.clone()),
        region: spec.region.clone(),
        bucket: spec.bucket.clone(),
        prefix: spec.prefix.clone(),
        path_style: spec.path_style,
        ca_file: spec.http.ca_file.clone(),
        read_only: drive.settings.read_only,
        ..S3Options::default()
    };
    match &spec.credentials {
        S3Credentials::Keys { access_key_id, secret_access_key, session_token } => {
            options.access_key_id = Some(access_key_id.clone());
            options.secret_access_key = Some(secret_access_key.expose().to_owned());
            options.session_token = session_token.as_ref().map(|token| token.expose().to_owned());
        }
        S3Credentials::Profile(profile) => options.profile = Some(profile.clone()),
        S3Credentials::Environment => {}
    }
    if let Some(saved) = saved {
        match s3::from_saved(options.clone(), saved, clock.clone(), chance.clone()) {
            Ok(remote) => return Ok(remote),
            Err(e) => tracing::warn!("what was known of the bucket is of no use: {e}"),
        }
    }
    let remote = s3::connect(options, clock.clone(), chance.clone()).await?;
    if !drive.settings.read_only {
        let text = remote.probe_text();
        store.write(|tx| tx.set_fact(PROBED, &text))?;
    }
    Ok(remote)
}
