//! Apache with mod_dav_fs. Debian: `apache2`, `apache2-utils`.

use super::{PASSWORD, Server, USER, give_to, is_root, program, write};
use std::path::Path;
use std::process::{Command, Stdio};

/// How it asks who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    Basic,
    Digest,
}

const MODULES: &str = "/usr/lib/apache2/modules";

/// Starts one.
pub fn start(login: Login) -> Option<Server> {
    start_with(login, "")
}

/// Starts one with more lines in the section of its directory (`DavDepthInfinity on`).
pub fn start_with(login: Login, more: &str) -> Option<Server> {
    let (apache, htpasswd) = (program("apache2")?, program("htpasswd")?);
    Some(Server::start("/dav/", |directory, port| {
        std::fs::create_dir_all(directory.join("lock")).expect("a directory for locks");
        let auth = match login {
            Login::Basic => {
                let file = directory.join("users");
                let done =
                    Command::new(&htpasswd).arg("-bc").arg(&file).args([USER, PASSWORD]).stderr(Stdio::null()).status();
                assert!(done.expect("htpasswd").success());
                format!("AuthType Basic\nAuthBasicProvider file\nAuthUserFile {}", file.display())
            }
            Login::Digest => {
                let file = directory.join("digests");
                write(&file, &format!("{USER}:drive:{}\n", md5(&format!("{USER}:drive:{PASSWORD}"))));
                format!("AuthType Digest\nAuthDigestProvider file\nAuthUserFile {}", file.display())
            }
        };
        write(&directory.join("httpd.conf"), &config(directory, port, &auth, more));
        give_to("www-data", directory);
        let mut command = Command::new(&apache);
        command.arg("-DFOREGROUND").arg("-d").arg(directory).arg("-f").arg(directory.join("httpd.conf"));
        command
    }))
}

fn config(directory: &Path, port: u16, auth: &str, more: &str) -> String {
    let names = [
        "mpm_event",
        "authn_core",
        "authn_file",
        "authz_core",
        "authz_user",
        "auth_basic",
        "auth_digest",
        "dav",
        "dav_fs",
    ];
    let modules: String =
        names.iter().map(|name| format!("LoadModule {name}_module {MODULES}/mod_{name}.so\n")).collect();
    let user = if is_root() { "User www-data\nGroup www-data\n" } else { "" };
    let at = directory.display();
    format!(
        "ServerRoot {at}\nServerName 127.0.0.1\nListen 127.0.0.1:{port}\nPidFile {at}/pid\nErrorLog {at}/error.log\n\
         {modules}{user}DefaultRuntimeDir {at}\nMutex file:{at}/lock default\n\
         StartServers 1\nMinSpareThreads 1\nMaxSpareThreads 25\nThreadsPerChild 25\nMaxRequestWorkers 25\n\
         KeepAliveTimeout 30\nMaxKeepAliveRequests 0\n\
         DocumentRoot {at}/www\nDavLockDB {at}/lock/dav\nDavMinTimeout 60\n\
         <Directory {at}/www/dav>\nDav On\nAuthName drive\n{auth}\nRequire valid-user\n{more}\n</Directory>\n"
    )
}

fn md5(text: &str) -> String {
    use std::io::Write;
    let mut child =
        Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("md5sum of coreutils");
    child.stdin.take().expect("its input").write_all(text.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("its output");
    String::from_utf8_lossy(&output.stdout).split_whitespace().next().expect("a sum").to_owned()
}
