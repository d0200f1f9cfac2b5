//! nginx with its DAV module and dav-ext. Debian: `nginx-light`, `libnginx-mod-http-dav-ext`.

use super::{PASSWORD, Server, USER, give_to, is_root, program, write};
use std::path::Path;
use std::process::Command;

const DAV_EXT: &str = "/usr/lib/nginx/modules/ngx_http_dav_ext_module.so";

/// Starts one.
pub fn start() -> Option<Server> {
    let nginx = program("nginx")?;
    if !Path::new(DAV_EXT).is_file() {
        eprintln!("SKIPPED, NOT PASSED: {DAV_EXT} is not installed");
        return None;
    }
    Some(Server::start("/dav/", |directory, port| {
        write(&directory.join("users"), &format!("{USER}:{{PLAIN}}{PASSWORD}\n"));
        write(&directory.join("nginx.conf"), &config(directory, port));
        give_to("www-data", directory);
        let mut command = Command::new(&nginx);
        command.arg("-p").arg(directory).arg("-c").arg(directory.join("nginx.conf")).args(["-e", "error.log"]);
        command
    }))
}

fn config(directory: &Path, port: u16) -> String {
    let at = directory.display();
    let user = if is_root() { "user www-data;" } else { "" };
    format!(
        "load_module {DAV_EXT};\n{user}\ndaemon off;\nworker_processes 1;\npid {at}/pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n\
         fastcgi_temp_path {at}/fastcgi;\n  uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n\
         server {{\n    listen 127.0.0.1:{port};\n    root {at}/www;\n    client_max_body_size 0;\n\
         location /dav/ {{\n      dav_methods PUT DELETE MKCOL COPY MOVE;\n      dav_ext_methods PROPFIND OPTIONS;\n\
         auth_basic drive;\n      auth_basic_user_file {at}/users;\n    }}\n  }}\n}}\n"
    )
}
