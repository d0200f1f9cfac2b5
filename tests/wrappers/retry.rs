//! What is repeated, how often, and what is looked at before.

use super::*;
use fourwheel::remote::{Retry, RetryPolicy, collect};

const POLICY: RetryPolicy = RetryPolicy { tries: 4, base_ms: 100, max_ms: 1_000, total_ms: 10_000 };

fn retry(flaky: &Arc<Flaky>) -> Retry {
    Retry::new(flaky.clone(), clock(), chance(), POLICY)
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_repeated_and_then_told() {
    for kind in [Kind::Offline, Kind::TimedOut, Kind::Throttled, Kind::Unavailable] {
        let flaky = Flaky::new(full(), first(3, Call::Stat, Fault::Before(error(kind))));
        assert_eq!(retry(&flaky).stat(&at("none")).await.unwrap(), None);
        assert_eq!(flaky.count(Call::Stat), 4);
        let flaky = Flaky::new(full(), first(4, Call::Stat, Fault::Before(error(kind))));
        assert_eq!(retry(&flaky).stat(&at("none")).await.unwrap_err().kind, kind);
        assert_eq!(flaky.count(Call::Stat), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn what_does_not_pass_by_itself_is_tried_once() {
    for kind in [Kind::SignIn, Kind::Denied, Kind::NotFound, Kind::QuotaFull, Kind::Precondition, Kind::Corrupt] {
        let flaky = Flaky::new(full(), move |_, _| Fault::Before(error(kind)));
        assert_eq!(retry(&flaky).list(&at(""), None).await.unwrap_err().kind, kind);
        let put = retry(&flaky).put(&at("f"), request("x", Condition::Any)).await;
        assert_eq!(put.unwrap_err().kind, kind);
        assert_eq!((flaky.count(Call::List), flaky.count(Call::Put), flaky.count(Call::Stat)), (1, 1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_asked_for_is_kept_or_the_call_fails_at_once() {
    let asked = |s| Fault::Before(error(Kind::Throttled).after(Duration::from_secs(s)));
    let flaky = Flaky::new(full(), first(1, Call::Stat, asked(7)));
    let began = Instant::now();
    retry(&flaky).stat(&at("x")).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(7));
    let flaky = Flaky::new(full(), first(1, Call::Stat, asked(11)));
    let began = Instant::now();
    let told = retry(&flaky).stat(&at("x")).await.unwrap_err();
    assert_eq!((told.retry_after, began.elapsed()), (Some(Duration::from_secs(11)), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn the_total_time_ends_the_tries() {
    let policy = RetryPolicy { tries: 1000, base_ms: 1_000, max_ms: 1_000, total_ms: 5_000 };
    let flaky = Flaky::new(full(), |_, _| Fault::Before(error(Kind::Offline)));
    let began = Instant::now();
    Retry::new(flaky.clone(), clock(), chance(), policy).quota().await.unwrap_err();
    assert!(began.elapsed() <= Duration::from_secs(5));
    assert!((5..=11).contains(&flaky.count(Call::Quota)), "{}", flaky.count(Call::Quota));
}

#[tokio::test(start_paused = true)]
async fn a_put_whose_answer_is_lost_is_not_sent_again() {
    // By hash, and without one by reading back.
    for memory in [full(), Arc::new(Memory::new(everything(), clock()).without_hashes())] {
        for condition in [Condition::Absent, Condition::Any] {
            let flaky = Flaky::new(memory.clone(), first(1, Call::Put, Fault::After(error(Kind::TimedOut))));
            let place = at(if condition == Condition::Any { "any" } else { "absent" });
            let entry = retry(&flaky).put(&place, request("content", condition)).await.unwrap();
            assert_eq!(flaky.count(Call::Put), 1);
            assert_eq!(entry, memory.stat(&place).await.unwrap().unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_that_did_not_happen_is_sent_again() {
    let memory = full();
    memory.write_file("f", "old").unwrap();
    let old = version(&*memory, "f").await;
    for condition in [Condition::Is(old), Condition::Any] {
        let flaky = Flaky::new(memory.clone(), first(2, Call::Put, Fault::Before(error(Kind::Unavailable))));
        retry(&flaky).put(&at("f"), request("new", condition)).await.unwrap();
        assert_eq!(flaky.count(Call::Put), 3);
        assert_eq!(memory.files()["f"], "new");
        memory.write_file("f", "another").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_write_is_not_written_over_by_a_repeat() {
    let memory = full();
    memory.write_file("f", "old").unwrap();
    let condition = Condition::Is(version(&*memory, "f").await);
    let theirs = memory.clone();
    let flaky = Flaky::new(memory.clone(), move |call, count| {
        if call == Call::Put && count == 0 {
            // Between the lost attempt and the look.
            theirs.write_file("f", "their").unwrap();
            return Fault::Before(error(Kind::Unavailable));
        }
        Fault::None
    });
    let told = retry(&flaky).put(&at("f"), request("mine", condition)).await.unwrap_err();
    assert_eq!((told.kind, flaky.count(Call::Put)), (Kind::Precondition, 1));
    assert_eq!(memory.files()["f"], "their");
}

#[tokio::test(start_paused = true)]
async fn a_write_is_not_repeated_without_a_look() {
    let flaky = Flaky::new(full(), |call, _| match call {
        Call::Put => Fault::Before(error(Kind::Unavailable)),
        _ => Fault::Before(error(Kind::Offline)),
    });
    let told = retry(&flaky).put(&at("f"), request("x", Condition::Any)).await.unwrap_err();
    assert_eq!((told.kind, flaky.count(Call::Put)), (Kind::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
async fn each_write_whose_answer_is_lost_counts_as_done() {
    let memory = full();
    memory.write_file("f", "x").unwrap();
    let lost = |call| Flaky::new(memory.clone(), first(1, call, Fault::After(error(Kind::TimedOut))));

    let flaky = lost(Call::Mkdir);
    retry(&flaky).mkdir(&at("d"), &Meta::default()).await.unwrap();
    assert_eq!(flaky.count(Call::Mkdir), 1);

    let flaky = lost(Call::PutLink);
    retry(&flaky).put_link(&at("l"), b"target", Meta::default()).await.unwrap();
    assert_eq!(flaky.count(Call::PutLink), 1);

    let flaky = lost(Call::Copy);
    let old = version(&*memory, "f").await;
    retry(&flaky).copy(&at("f"), &old, &at("f2"), &Condition::Absent).await.unwrap();
    assert_eq!(flaky.count(Call::Copy), 1);

    let flaky = lost(Call::Rename);
    retry(&flaky).rename(&at("f"), &at("d/f"), Some(&old), &Condition::Absent).await.unwrap();
    assert_eq!(flaky.count(Call::Rename), 1);

    let flaky = lost(Call::SetMeta);
    let meta = Meta { mtime_ns: Some(5), mode: Some(0o600), xattrs: None };
    retry(&flaky).set_meta(&at("d/f"), false, None, &meta).await.unwrap();
    assert_eq!(flaky.count(Call::SetMeta), 1);

    let flaky = lost(Call::Remove);
    retry(&flaky).remove(&at("d/f"), false, &Condition::Any).await.unwrap();
    assert_eq!(flaky.count(Call::Remove), 1);
}

#[tokio::test(start_paused = true)]
async fn a_move_that_cannot_be_shown_is_not_claimed_nor_repeated() {
    let memory = memory(Capabilities { stable_ids: false, ..everything() });
    memory.write_file("f", "x").unwrap();
    let flaky = Flaky::new(memory.clone(), first(1, Call::Rename, Fault::After(error(Kind::TimedOut))));
    let told = retry(&flaky).rename(&at("f"), &at("g"), None, &Condition::Any).await.unwrap_err();
    assert_eq!((told.kind, flaky.count(Call::Rename)), (Kind::NotFound, 1));
    assert!(memory.files().contains_key("g"));
}

#[tokio::test(start_paused = true)]
async fn a_download_goes_on_where_it_broke_off() {
    let memory = full();
    let content: Vec<u8> = (0..500_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
    memory.write_file("f", content.clone()).unwrap();
    let old = version(&*memory, "f").await;
    // Breaks off seven times, each after something came.
    let flaky = Flaky::new(memory.clone(), first(7, Call::Read, Fault::Break(1, error(Kind::Unavailable))));
    let stream = retry(&flaky).read(&at("f"), &old, 10..499_990).await.unwrap();
    assert!(collect(stream).await.unwrap() == content[10..499_990]);
    assert_eq!(flaky.count(Call::Read), 8);
    // A version that is gone in between is not mixed with the next.
    let theirs = memory.clone();
    let flaky = Flaky::new(memory.clone(), move |_, count| {
        if count == 0 {
            return Fault::Break(2, error(Kind::Unavailable));
        }
        theirs.write_file("f", vec![0; 500_000]).unwrap();
        Fault::None
    });
    let stream = retry(&flaky).read(&at("f"), &old, 0..500_000).await.unwrap();
    assert_eq!(collect(stream).await.unwrap_err().kind, Kind::Changed);
}

#[tokio::test(start_paused = true)]
async fn a_finish_is_repeated_while_its_session_is_there() {
    let memory = full();
    let begin = async || {
        let session = memory.begin(&at("f"), 3, &Meta::default(), &Condition::Any).await.unwrap();
        let part = memory.part(&session, 1, body("abc"), 0..3).await.unwrap();
        (session, vec![part])
    };
    let flaky = Flaky::new(memory.clone(), first(2, Call::Finish, Fault::Before(error(Kind::Unavailable))));
    let (session, parts) = begin().await;
    retry(&flaky).finish(&session, &parts, &Meta::default(), &Condition::Absent).await.unwrap();
    assert_eq!(memory.files()["f"], "abc");
    // Where the session is gone the caller looks.
    let flaky = Flaky::new(memory.clone(), first(1, Call::Finish, Fault::After(error(Kind::TimedOut))));
    let (session, parts) = begin().await;
    let told = retry(&flaky).finish(&session, &parts, &Meta::default(), &Condition::Any).await.unwrap_err();
    assert_eq!((told.kind, flaky.count(Call::Finish)), (Kind::TimedOut, 1));
}
