use std::time::Duration;

use block::FakeBlock;
use tokio::time::Instant;

use super::*;

fn degraded(fake: &FakeBlock) -> bool {
    fake.log().iter().any(|line| line == "mdadm --run")
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_arrays_waits_for_nothing() {
    let fake = FakeBlock::default();
    let before = Instant::now();
    start(&VolumeEdges::of(&fake)).await.unwrap();
    assert_eq!((before.elapsed(), degraded(&fake)), (Duration::ZERO, false));
}

#[tokio::test(start_paused = true)]
async fn an_array_that_is_completed_in_time_is_left_to_udevd() {
    let fake = FakeBlock::default();
    fake.add_waiting_array("md127");
    let complete = async {
        tokio::time::sleep(Duration::from_secs(20)).await;
        fake.complete_arrays();
    };
    let edges = VolumeEdges::of(&fake);
    let before = Instant::now();
    let (started, ()) = tokio::join!(start(&edges), complete);
    started.unwrap();
    assert_eq!((before.elapsed(), degraded(&fake)), (Duration::from_secs(20), false));
}

#[tokio::test(start_paused = true)]
async fn an_array_that_lacks_a_member_is_started_without_it_after_a_while() {
    let fake = FakeBlock::default();
    fake.add_waiting_array("md127");
    let before = Instant::now();
    start(&VolumeEdges::of(&fake)).await.unwrap();
    assert_eq!((before.elapsed(), degraded(&fake)), (LATE, true));
}

#[tokio::test(start_paused = true)]
async fn an_array_that_has_too_few_members_is_named() {
    let fake = FakeBlock::default();
    fake.add_waiting_array("md127");
    fake.add_broken_array("md5");
    let refused = start(&VolumeEdges::of(&fake)).await.unwrap_err();
    assert_eq!(refused.to_string(), "software RAID md5 lacks too many of its disks");
}
