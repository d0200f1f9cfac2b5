//! WsgiDAV on cheroot. PyPI: `wsgidav`, `cheroot`.

use super::{PASSWORD, Server, USER, program, write};
use std::process::Command;

/// Starts one.
pub fn start() -> Option<Server> {
    let wsgidav = program("wsgidav")?;
    Some(Server::start("/dav/", |directory, port| {
        let config = directory.join("wsgidav.yaml");
        let at = directory.display();
        write(
            &config,
            &format!(
                "host: 127.0.0.1\nport: {port}\nserver: cheroot\nprovider_mapping:\n  '/dav': '{at}/www/dav'\n\
                 http_authenticator:\n  accept_basic: true\n  accept_digest: false\n  default_to_digest: false\n\
                 simple_dc:\n  user_mapping:\n    '*':\n      '{USER}':\n        password: '{PASSWORD}'\n\
                 logging:\n  enable: false\n"
            ),
        );
        let mut command = Command::new(&wsgidav);
        command.arg("--config").arg(config);
        command
    }))
}
