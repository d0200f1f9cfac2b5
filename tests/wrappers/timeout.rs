//! Deadlines: what stands still is cut, what is slow is not.

use super::*;
use async_trait::async_trait;
use fourwheel::error::Result;
use fourwheel::remote::{Body, Timeout, TimeoutPolicy, collect};
use futures_util::StreamExt;
use std::ops::Range;

const POLICY: TimeoutPolicy = TimeoutPolicy {
    answer_ms: 5_000,
    page_ms: 10_000,
    work_ms: 60_000,
    first_byte_ms: 2_000,
    download_pause_ms: 3_000,
    upload_pause_ms: 4_000,
    bytes_per_s_min: 1 << 20,
};

fn timeout(remote: Arc<dyn Remote>) -> Timeout {
    Timeout::new(remote, POLICY)
}

async fn elapsed<T>(work: impl Future<Output = Result<T>>) -> (Result<T>, u64) {
    let began = Instant::now();
    let result = work.await;
    (result, began.elapsed().as_millis() as u64)
}

#[tokio::test(start_paused = true)]
async fn each_call_has_its_deadline() {
    let remote = timeout(Flaky::new(full(), |_, _| Fault::Hang));
    let version = Version::new("v1");
    let late = |(result, ms): (Result<()>, u64)| (result.unwrap_err().kind, ms);
    let stat = elapsed(async { remote.stat(&at("x")).await.map(drop) }).await;
    assert_eq!(late(stat), (Kind::TimedOut, 5_000));
    let list = elapsed(async { remote.list(&at(""), None).await.map(drop) }).await;
    assert_eq!(late(list), (Kind::TimedOut, 10_000));
    let changes = elapsed(async { remote.changes(None, 30_000).await.map(drop) }).await;
    assert_eq!(late(changes), (Kind::TimedOut, 40_000));
    let read = elapsed(async { remote.read(&at("x"), &version, 0..1).await.map(drop) }).await;
    assert_eq!(late(read), (Kind::TimedOut, 2_000));
    let rename = elapsed(async { remote.rename(&at("x"), &at("y"), None, &Condition::Any).await.map(drop) }).await;
    assert_eq!(late(rename), (Kind::TimedOut, 60_000));
    let put = elapsed(async { remote.put(&at("x"), request("abc", Condition::Any)).await.map(drop) }).await;
    assert_eq!(late(put), (Kind::TimedOut, 4_000));
}

/// A remote whose transfers take their time. Only what these tests call.
struct Slow {
    inner: Arc<Memory>,
    piece_bytes: u64,
    piece_ms: u64,
    /// After so many pieces nothing comes any more.
    stall_after: usize,
}

impl Slow {
    async fn take(&self, body: &Body) -> Result<()> {
        let mut at = 0;
        while at < body.size() {
            if (at / self.piece_bytes) as usize == self.stall_after {
                std::future::pending::<()>().await;
            }
            body.read(at..body.size().min(at + self.piece_bytes))?;
            at += self.piece_bytes;
            tokio::time::sleep(Duration::from_millis(self.piece_ms)).await;
        }
        Ok(())
    }
}

mod slow {
    //! The trait for `Slow`: two calls of interest, the rest as they are.
    use super::*;
    use fourwheel::model::{Entry, Quota};
    use fourwheel::remote::{ByteStream, Changes, Listing, Part, Session};

    #[async_trait]
    impl Remote for Slow {
        fn capabilities(&self) -> &Capabilities {
            self.inner.capabilities()
        }
        fn describe(&self) -> String {
            self.inner.describe()
        }
        async fn sweep(&self, page: Option<String>) -> Result<Listing> {
            self.inner.sweep(page).await
        }
        async fn list(&self, directory: &Place, page: Option<String>) -> Result<Listing> {
            self.inner.list(directory, page).await
        }
        async fn changes(&self, cursor: Option<String>, wait_ms: u64) -> Result<Changes> {
            self.inner.changes(cursor, wait_ms).await
        }
        async fn stat(&self, place: &Place) -> Result<Option<Entry>> {
            self.inner.stat(place).await
        }
        async fn read(&self, _: &Place, _: &Version, range: Range<u64>) -> Result<ByteStream> {
            let (wait, stall) = (Duration::from_millis(self.piece_ms), self.stall_after);
            let pieces = futures_util::stream::iter(0..(range.end / 1024) as usize);
            Ok(Box::pin(pieces.then(move |n| async move {
                if n == stall {
                    std::future::pending::<()>().await;
                }
                tokio::time::sleep(wait).await;
                Ok(Bytes::from_static(&[0; 1024]))
            })))
        }
        async fn read_link(&self, place: &Place) -> Result<Vec<u8>> {
            self.inner.read_link(place).await
        }
        async fn put(&self, place: &Place, request: PutRequest) -> Result<Entry> {
            self.take(&request.body).await?;
            self.inner.put(place, request).await
        }
        async fn put_link(&self, place: &Place, target: &[u8], meta: Meta) -> Result<Entry> {
            self.inner.put_link(place, target, meta).await
        }
        async fn begin(&self, place: &Place, size: u64, meta: &Meta, condition: &Condition) -> Result<Session> {
            self.inner.begin(place, size, meta, condition).await
        }
        async fn part(&self, session: &Session, number: u32, body: Body, range: Range<u64>) -> Result<Part> {
            self.inner.part(session, number, body, range).await
        }
        async fn part_copy(
            &self,
            session: &Session,
            number: u32,
            from: &Place,
            version: &Version,
            range: Range<u64>,
        ) -> Result<Part> {
            self.inner.part_copy(session, number, from, version, range).await
        }
        async fn parts(&self, session: &Session) -> Result<Vec<Part>> {
            self.inner.parts(session).await
        }
        async fn finish(&self, session: &Session, parts: &[Part], meta: &Meta, condition: &Condition) -> Result<Entry> {
            self.inner.finish(session, parts, meta, condition).await
        }
        async fn abort(&self, session: &Session) -> Result<()> {
            self.inner.abort(session).await
        }
        async fn mkdir(&self, place: &Place, meta: &Meta) -> Result<Entry> {
            self.inner.mkdir(place, meta).await
        }
        async fn rename(
            &self,
            from: &Place,
            to: &Place,
            was: Option<&Version>,
            condition: &Condition,
        ) -> Result<Entry> {
            self.inner.rename(from, to, was, condition).await
        }
        async fn remove(&self, place: &Place, directory: bool, condition: &Condition) -> Result<()> {
            self.inner.remove(place, directory, condition).await
        }
        async fn copy(&self, from: &Place, version: &Version, to: &Place, condition: &Condition) -> Result<Entry> {
            self.inner.copy(from, version, to, condition).await
        }
        async fn set_meta(&self, place: &Place, directory: bool, was: Option<&Version>, meta: &Meta) -> Result<Entry> {
            self.inner.set_meta(place, directory, was, meta).await
        }
        async fn quota(&self) -> Result<Quota> {
            self.inner.quota().await
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_transfer_takes_as_long_as_it_takes() {
    let slow = Arc::new(Slow { inner: full(), piece_bytes: 1024, piece_ms: 1_900, stall_after: usize::MAX });
    let remote = timeout(slow);
    let (stream, _) = elapsed(remote.read(&at("f"), &Version::new("v"), 0..50 * 1024)).await;
    let (content, ms) = elapsed(collect(stream.unwrap())).await;
    assert_eq!((content.unwrap().len(), ms), (50 * 1024, 95_000));
    let (entry, ms) = elapsed(remote.put(&at("f"), request(vec![0; 50 * 1024], Condition::Any))).await;
    assert_eq!((entry.unwrap().size, ms), (50 * 1024, 95_000));
}

#[tokio::test(start_paused = true)]
async fn a_transfer_that_stands_still_is_cut() {
    let slow = Arc::new(Slow { inner: full(), piece_bytes: 1024, piece_ms: 100, stall_after: 10 });
    let remote = timeout(slow.clone());
    let stream = remote.read(&at("f"), &Version::new("v"), 0..50 * 1024).await.unwrap();
    let (content, ms) = elapsed(collect(stream)).await;
    assert_eq!((content.unwrap_err().kind, ms), (Kind::TimedOut, 1_000 + 3_000));
    let (entry, ms) = elapsed(remote.put(&at("f"), request(vec![0; 50 * 1024], Condition::Any))).await;
    assert_eq!((entry.unwrap_err().kind, ms), (Kind::TimedOut, 900 + 4_000));
    assert_eq!(slow.inner.files().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_at_once_is_given_time_to_leave() {
    // 8 MiB in one piece: 8 s at the slowest rate that counts, besides the pause and the answer.
    let remote = |piece_ms| timeout(Arc::new(Slow { inner: full(), piece_bytes: 8 << 20, piece_ms, stall_after: 9 }));
    let content = || request(vec![0; 8 << 20], Condition::Any);
    let (entry, ms) = elapsed(remote(16_000).put(&at("f"), content())).await;
    assert!(entry.is_ok() && ms == 16_000);
    let (entry, ms) = elapsed(remote(60_000).put(&at("f"), content())).await;
    assert_eq!((entry.unwrap_err().kind, ms), (Kind::TimedOut, 17_000));
}
