//! A provider that cannot be reached: a few slow failures, then fast ones, then by itself as before.

use super::*;
use fourwheel::remote::{Circuit, CircuitPolicy, Link, Settings, stack};
use std::sync::atomic::AtomicBool;

/// A remote that hangs while `down`.
fn switchable() -> (Arc<AtomicBool>, Arc<Flaky>) {
    let down = Arc::new(AtomicBool::new(true));
    let seen = down.clone();
    (down, Flaky::new(full(), move |_, _| if seen.load(Ordering::Relaxed) { Fault::Hang } else { Fault::None }))
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_open_it_and_an_answer_closes_it() {
    let flaky = Flaky::new(full(), first(5, Call::Stat, Fault::Before(error(Kind::Offline))));
    let circuit = Circuit::new(flaky.clone(), clock(), CircuitPolicy { failures: 3, probe_ms: 1_000 });
    for _ in 0..3 {
        assert!(!circuit.is_open());
        circuit.stat(&at("x")).await.unwrap_err();
    }
    assert!(circuit.is_open());
    let told = circuit.list(&at(""), None).await.unwrap_err();
    assert_eq!((told.kind, flaky.count(Call::List)), (Kind::Offline, 0));
    // Two looks fail, the third answers.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert!(circuit.is_open());
    tokio::time::sleep(Duration::from_millis(1_000)).await;
    assert!(!circuit.is_open());
    circuit.list(&at(""), None).await.unwrap();
    assert_eq!(flaky.count(Call::Stat), 6);
}

#[tokio::test(start_paused = true)]
async fn errors_that_are_answers_do_not_open_it() {
    let flaky = Flaky::new(full(), |_, _| Fault::Before(error(Kind::Unavailable)));
    let circuit = Circuit::new(flaky, clock(), CircuitPolicy { failures: 2, probe_ms: 1_000 });
    for _ in 0..10 {
        circuit.stat(&at("x")).await.unwrap_err();
    }
    assert!(!circuit.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_program_waits_for_the_deadline_at_first_and_not_at_all_afterwards() {
    let (down, flaky) = switchable();
    let stack = stack(flaky, clock(), chance(), &Settings::default());
    let version = Version::new("v");
    for _ in 0..3 {
        let began = Instant::now();
        let told = stack.foreground.read(&at("f"), &version, 0..1).await.map(drop).unwrap_err();
        assert!(matches!(told.kind, Kind::TimedOut | Kind::Offline));
        assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
    }
    for _ in 0..100 {
        let began = Instant::now();
        let told = stack.foreground.read(&at("f"), &version, 0..1).await.map(drop).unwrap_err();
        assert_eq!((told.kind, began.elapsed()), (Kind::Offline, Duration::ZERO));
    }
    assert_eq!(stack.meter.link(), Link::Offline);
    down.store(false, Ordering::Relaxed);
    // The look that was under way may still have to time out.
    tokio::time::sleep(Duration::from_secs(30)).await;
    stack.foreground.stat(&at("f")).await.unwrap();
    assert_eq!(stack.meter.link(), Link::Online);
}

#[tokio::test(start_paused = true)]
async fn work_that_nobody_waits_for_outlasts_a_short_outage() {
    let (down, flaky) = switchable();
    let stack = stack(flaky, clock(), chance(), &Settings::default());
    let put = tokio::spawn({
        let remote = stack.background.clone();
        async move { remote.put(&at("f"), request("x", Condition::Absent)).await }
    });
    tokio::time::sleep(Duration::from_secs(45)).await;
    down.store(false, Ordering::Relaxed);
    put.await.unwrap().unwrap();
}
