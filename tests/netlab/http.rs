//! Follows HTTP/1.1 requests in a byte stream: heads, and bodies by Content-Length or chunked.

/// Where in the stream the next byte stands.
enum Place {
    Head(Vec<u8>),
    Body(u64),
    ChunkSize(Vec<u8>),
    ChunkData(u64),
    Trailer(Vec<u8>),
    /// Not HTTP: passed through uncounted.
    Opaque,
}

/// A head longer than this is not followed further.
const HEAD_BYTES_MAX: usize = 256 * 1024;

pub struct Follower(Place);

/// The part of a request's head that counts here.
struct Head {
    line: String,
    range: Option<String>,
    body: Place,
}

impl Follower {
    pub fn new() -> Self {
        Follower(Place::Head(Vec::new()))
    }

    /// Takes the next piece of the stream; calls `begun` with the request line and range of each request in it.
    pub fn feed(&mut self, mut data: &[u8], mut begun: impl FnMut(&str, Option<&str>)) {
        while !data.is_empty() {
            let (used, next) = self.step(data, &mut begun);
            data = &data[used..];
            if let Some(next) = next {
                self.0 = next;
            }
        }
    }

    fn step(&mut self, data: &[u8], begun: &mut impl FnMut(&str, Option<&str>)) -> (usize, Option<Place>) {
        match &mut self.0 {
            Place::Opaque => (data.len(), None),
            Place::Head(buffer) => {
                let (before, from) = (buffer.len(), buffer.len().saturating_sub(3));
                buffer.extend_from_slice(data);
                let Some(at) = find(&buffer[from..], b"\r\n\r\n") else {
                    return (data.len(), (buffer.len() > HEAD_BYTES_MAX).then_some(Place::Opaque));
                };
                let end = from + at + 4;
                let Some(head) = head(&buffer[..end]) else { return (data.len(), Some(Place::Opaque)) };
                begun(&head.line, head.range.as_deref());
                (end - before, Some(head.body))
            }
            Place::Body(left) => {
                let used = (*left).min(data.len() as u64);
                *left -= used;
                (used as usize, (*left == 0).then(|| Place::Head(Vec::new())))
            }
            Place::ChunkSize(line) => {
                if data[0] != b'\n' {
                    line.push(data[0]);
                    return (1, None);
                }
                let text = String::from_utf8_lossy(line);
                let digits = text.trim().split(';').next().unwrap_or("0");
                let size = u64::from_str_radix(digits, 16).unwrap_or(0);
                (1, Some(if size == 0 { Place::Trailer(Vec::new()) } else { Place::ChunkData(size + 2) }))
            }
            Place::ChunkData(left) => {
                let used = (*left).min(data.len() as u64);
                *left -= used;
                (used as usize, (*left == 0).then(|| Place::ChunkSize(Vec::new())))
            }
            Place::Trailer(line) => {
                if data[0] != b'\n' {
                    line.push(data[0]);
                    return (1, None);
                }
                let ended = line.iter().all(|byte| *byte == b'\r');
                line.clear();
                (1, ended.then(|| Place::Head(Vec::new())))
            }
        }
    }
}

fn head(bytes: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let line = lines.next().filter(|line| line.contains(" HTTP/1."))?.to_string();
    let (mut length, mut chunked, mut range) = (0, false, None);
    for (key, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match key.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap_or(0),
            "transfer-encoding" => chunked = value.to_ascii_lowercase().contains("chunked"),
            "range" => range = Some(value.to_string()),
            _ => {}
        }
    }
    let body = match (chunked, length) {
        (true, _) => Place::ChunkSize(Vec::new()),
        (false, 0) => Place::Head(Vec::new()),
        (false, length) => Place::Body(length),
    };
    Some(Head { line, range, body })
}

pub fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    hay.windows(needle.len()).position(|window| window == needle)
}
