//! The control port: changes settings and shows counters over plain HTTP.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http::find;
use crate::settings::Shared;

/// The longest request head that is read.
const HEAD_BYTES_MAX: usize = 8192;

pub async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        if let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(shared.clone(), socket));
        }
    }
}

async fn answer(shared: Arc<Shared>, mut socket: TcpStream) {
    let Some(target) = target(&mut socket).await else { return };
    let (status, body) = match command(&shared, &target) {
        Ok(()) => ("200 OK", shared.json()),
        Err(reason) => ("400 Bad Request", format!("{reason}\n")),
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    // An asker who has gone needs no answer.
    let _ = socket.write_all((head + &body).as_bytes()).await;
    let _ = socket.shutdown().await;
}

/// The target of the request line, `None` when no whole head came.
async fn target(socket: &mut TcpStream) -> Option<String> {
    let (mut buffer, mut have) = ([0u8; HEAD_BYTES_MAX], 0);
    while find(&buffer[..have], b"\r\n\r\n").is_none() {
        match socket.read(&mut buffer[have..]).await {
            Ok(0) | Err(_) => return None,
            Ok(len) => have += len,
        }
    }
    Some(String::from_utf8_lossy(&buffer[..have]).split(' ').nth(1)?.to_string())
}

fn command(shared: &Shared, target: &str) -> Result<(), String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    match path {
        "/stats" => {}
        "/reset" => shared.reset_counters(),
        "/kill" => shared.kill_all(),
        "/log" => {
            let file = pairs.clone().find(|(key, _)| *key == "file").map_or("", |(_, value)| value);
            let open = |file| std::fs::File::create(file).map_err(|e| format!("{file}: {e}"));
            shared.log_to(if file.is_empty() { None } else { Some(open(file)?) });
        }
        "/set" => {
            let mut settings = shared.settings.borrow().clone();
            for (key, value) in pairs {
                settings.set(key, value)?;
            }
            shared.apply(settings);
        }
        _ => return Err(format!("no such page: {path}")),
    }
    Ok(())
}
