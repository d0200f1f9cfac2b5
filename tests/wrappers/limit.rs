//! The gate: transfers never hold up metadata, and a slot comes back whatever becomes of its call.

use super::*;
use fourwheel::remote::{Gate, Limit, LimitPolicy};

fn gate(start: usize) -> Arc<Gate> {
    Arc::new(Gate::new(LimitPolicy { start, metadata_reserve: 2, ..LimitPolicy::default() }, clock()))
}

#[tokio::test(start_paused = true)]
async fn hanging_transfers_do_not_hold_up_a_stat() {
    let flaky = Flaky::new(full(), |call, _| if call == Call::Put { Fault::Hang } else { Fault::None });
    let limit = Arc::new(Limit::new(flaky.clone(), gate(4)));
    let puts: Vec<_> = (0..20)
        .map(|n| {
            let limit = limit.clone();
            tokio::spawn(async move { limit.put(&at(&format!("f{n}")), request("x", Condition::Any)).await })
        })
        .collect();
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert_eq!(flaky.count(Call::Put), 2);
    limit.stat(&at("x")).await.unwrap();
    // A caller that gives up gives its slot to the next.
    for put in puts.iter().take(5) {
        put.abort();
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    assert!(flaky.count(Call::Put) > 2, "{}", flaky.count(Call::Put));
}

#[tokio::test(start_paused = true)]
async fn a_download_holds_its_slot_until_it_is_dropped() {
    let memory = full();
    memory.write_file("f", vec![0; 1000]).unwrap();
    let old = version(&*memory, "f").await;
    let limit = Limit::new(memory, gate(3));
    let stream = limit.read(&at("f"), &old, 0..1000).await.unwrap();
    let place = at("f");
    let wait = Duration::from_secs(3600);
    assert!(tokio::time::timeout(wait, limit.read(&place, &old, 0..1000)).await.is_err());
    drop(stream);
    assert!(tokio::time::timeout(wait, limit.read(&place, &old, 0..1000)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_wish_to_wait_holds_for_the_whole_account() {
    let slow = error(Kind::Throttled).after(Duration::from_secs(2));
    let flaky = Flaky::new(full(), first(1, Call::Stat, Fault::Before(slow)));
    let limit = Limit::new(flaky, gate(8));
    limit.stat(&at("x")).await.unwrap_err();
    let began = Instant::now();
    limit.quota().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(2));
}
