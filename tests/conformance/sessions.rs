//! Upload sessions: content in parts, resumed after a crash, put together in one step.

use super::World;
use super::world::{at, expect_kind, pattern};
use fourwheel::error::Kind;
use fourwheel::model::Meta;
use fourwheel::remote::{Condition, Part, Session, UploadSessions, body};
use std::ops::Range;

/// A content of a few parts, and their ranges in order.
struct Work {
    rules: UploadSessions,
    content: Vec<u8>,
    ranges: Vec<Range<u64>>,
}

fn work(world: &World, seed: u64) -> Option<Work> {
    let Some(rules) = world.able().sessions else {
        world.skip("no upload sessions");
        return None;
    };
    let part = rules.part_bytes_min.max(64 << 10).min(rules.part_bytes_max);
    let size = part * 3 + 1000.min(part);
    let ranges = (0..4).map(|n| n * part..size.min((n + 1) * part)).collect();
    Some(Work { rules, content: pattern(size as usize, seed), ranges })
}

impl Work {
    async fn begin(&self, world: &World, name: &str, condition: &Condition) -> Session {
        let size = self.content.len() as u64;
        world.remote.begin(&at(name), size, &Meta::default(), condition).await.unwrap()
    }

    /// Sends the part at `index`.
    async fn send(&self, world: &World, session: &Session, index: usize) -> Part {
        let range = self.ranges[index].clone();
        let (number, size) = (index as u32 + 1, range.end - range.start);
        let part = world.remote.part(session, number, body(self.content.clone()), range).await.unwrap();
        assert_eq!((part.number, part.size), (number, size));
        part
    }

    async fn send_all(&self, world: &World, session: &Session) -> Vec<Part> {
        let mut parts = Vec::new();
        for index in 0..self.ranges.len() {
            parts.push(self.send(world, session, index).await);
        }
        parts
    }
}

pub async fn parts_in_any_order_make_the_content(world: World) {
    let Some(work) = work(&world, 1) else { return };
    let session = work.begin(&world, "file", &Condition::Absent).await;
    let order = if work.rules.parallel { [2, 0, 3, 1] } else { [0, 1, 2, 3] };
    let mut parts = Vec::new();
    for index in order {
        parts.push(work.send(&world, &session, index).await);
    }
    let last = parts.iter().position(|part| part.number as usize == order[3] + 1).unwrap();
    parts[last] = work.send(&world, &session, order[3]).await;
    parts.sort_by_key(|part| part.number);
    assert_eq!(world.stat("file").await, None, "nothing is there before the end");
    assert_eq!(world.names("").await, [""; 0], "no part is listed");
    let meta = Meta { mtime_ns: Some(1_700_000_000_000_000_000), ..Meta::default() };
    let entry = world.remote.finish(&session, &parts, &meta, &Condition::Absent).await.unwrap();
    assert_eq!((entry.size, entry.version.clone()), (work.content.len() as u64, Some(world.version("file").await)));
    assert!(world.content("file").await == work.content);
    if world.able().meta.with_upload && world.able().meta.mtime_step_ns > 0 {
        assert_eq!(world.stat("file").await.unwrap().meta.unwrap().mtime_ns, meta.mtime_ns);
    }
}

pub async fn a_session_goes_on_after_a_crash(world: World) {
    let Some(work) = work(&world, 2) else { return };
    let kept = work.begin(&world, "file", &Condition::Any).await.0;
    let first = work.send(&world, &Session(kept.clone()), 0).await;
    // Nothing but the text of the session outlives the crash.
    let session = Session(kept);
    let held = world.remote.parts(&session).await.unwrap();
    assert_eq!(held, [first]);
    let mut parts = held;
    for index in 1..work.ranges.len() {
        parts.push(work.send(&world, &session, index).await);
    }
    assert_eq!(world.remote.parts(&session).await.unwrap(), parts);
    world.remote.finish(&session, &parts, &Meta::default(), &Condition::Any).await.unwrap();
    assert!(world.content("file").await == work.content);
}

pub async fn an_aborted_session_leaves_nothing(world: World) {
    let Some(work) = work(&world, 3) else { return };
    let session = work.begin(&world, "file", &Condition::Any).await;
    work.send(&world, &session, 0).await;
    world.remote.abort(&session).await.unwrap();
    world.remote.abort(&session).await.unwrap();
    expect_kind(world.remote.parts(&session).await, &[Kind::NotFound]);
    let range = work.ranges[0].clone();
    let part = world.remote.part(&session, 1, body(work.content.clone()), range).await;
    expect_kind(part, &[Kind::NotFound]);
    assert_eq!(world.names("").await, [""; 0]);
}

pub async fn finish_obeys_its_condition(world: World) {
    let Some(work) = work(&world, 4) else { return };
    let old = world.put("file", b"older").await.version.unwrap();
    world.put("file", b"there").await;
    for condition in [Condition::Absent, Condition::Is(old)] {
        let session = work.begin(&world, "file", &Condition::Any).await;
        let parts = work.send_all(&world, &session).await;
        let finish = world.remote.finish(&session, &parts, &Meta::default(), &condition).await;
        expect_kind(finish, &[Kind::Precondition]);
        assert_eq!(world.content("file").await, b"there"[..]);
        world.remote.abort(&session).await.unwrap();
    }
    let condition = Condition::Is(world.version("file").await);
    let session = work.begin(&world, "file", &condition).await;
    let parts = work.send_all(&world, &session).await;
    world.remote.finish(&session, &parts, &Meta::default(), &condition).await.unwrap();
    assert!(world.content("file").await == work.content);
}

pub async fn a_part_can_be_copied_from_the_old_version(world: World) {
    let Some(work) = work(&world, 5) else { return };
    if !work.rules.part_copy {
        return world.skip("parts cannot be copied");
    }
    let version = world.put("file", &work.content).await.version.unwrap();
    let condition = Condition::Is(version.clone());
    let session = work.begin(&world, "file", &condition).await;
    let mut parts = Vec::new();
    for index in 0..3 {
        let range = work.ranges[index].clone();
        let copied = world.remote.part_copy(&session, index as u32 + 1, &at("file"), &version, range).await;
        parts.push(copied.unwrap());
    }
    let mut content = work.content.clone();
    let last = work.ranges[3].clone();
    content[last.start as usize..].fill(b'!');
    parts.push(world.remote.part(&session, 4, body(content.clone()), last).await.unwrap());
    world.remote.finish(&session, &parts, &Meta::default(), &condition).await.unwrap();
    assert!(world.content("file").await == content);
    let session = work.begin(&world, "file", &Condition::Any).await;
    let gone = world.remote.part_copy(&session, 1, &at("file"), &version, work.ranges[0].clone()).await;
    expect_kind(gone, &[Kind::Changed, Kind::NotFound]);
    world.remote.abort(&session).await.unwrap();
}
