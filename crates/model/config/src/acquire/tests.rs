use super::*;

const ROOT: &str = include_str!("../../testdata/worker.yaml");
const LOG: &str = "apiVersion: v1alpha1\nkind: KmsgLogConfig\nname: a\nurl: tcp://10.0.0.1:514/\n";

fn documents(text: &str) -> Documents {
    Documents::from_yaml(text.as_bytes()).unwrap()
}

fn start() -> Acquisition {
    Acquisition::new(Mode::Container)
}

fn seconds(seconds: u64) -> Uptime {
    Duration::from_secs(seconds)
}

#[test]
fn the_disk_comes_before_the_platform_and_the_platform_before_maintenance() {
    let mut it = start();
    assert_eq!(it.step(), Step::ReadDisk { not_before: Uptime::ZERO });
    it.disk(Ok(None), seconds(1));
    assert_eq!(it.step(), Step::AskPlatform { not_before: seconds(1) });
    it.platform(Ok(None), seconds(2));
    assert_eq!(it.step(), Step::Maintain { read_disk_at: None });
    it.submit(documents(ROOT)).unwrap();
    assert_eq!(it.step(), Step::Done { documents: documents(ROOT), source: Source::Maintenance });

    let mut it = start();
    it.disk(Ok(Some(documents(ROOT))), seconds(1));
    assert!(matches!(it.step(), Step::Done { source: Source::Disk, .. }));
    let mut it = start();
    it.disk(Ok(None), seconds(1));
    it.platform(Ok(Some(documents(ROOT))), seconds(1));
    assert!(matches!(it.step(), Step::Done { source: Source::Platform, .. }));
}

#[test]
fn a_disk_that_cannot_be_read_is_read_again_and_then_maintenance_opens_beside() {
    let mut it = start();
    let mut waits = Vec::new();
    let mut now = Uptime::ZERO;
    while let Step::ReadDisk { not_before } = it.step() {
        waits.push((not_before - now).as_millis());
        now = not_before;
        it.disk(Err(Failure::Passing), now);
    }
    assert_eq!(waits, [0, 500, 1000, 2000, 4000]);
    assert_eq!(it.step(), Step::Maintain { read_disk_at: Some(now + seconds(30)) });
    it.disk(Ok(Some(documents(ROOT))), now + seconds(30));
    assert!(matches!(it.step(), Step::Done { source: Source::Disk, .. }));
}

#[test]
fn damage_is_not_tried_again_and_the_platform_is_not_asked() {
    let mut it = start();
    it.disk(Err(Failure::Lasting), Uptime::ZERO);
    assert_eq!(it.step(), Step::Maintain { read_disk_at: None });
}

#[test]
fn a_platform_that_does_not_answer_is_asked_for_ever_and_opens_nothing() {
    let mut it = start();
    it.disk(Ok(None), Uptime::ZERO);
    let (mut now, mut waits) = (Uptime::ZERO, Vec::new());
    for _ in 0..100 {
        it.platform(Err(Failure::Passing), now);
        let Step::AskPlatform { not_before } = it.step() else { panic!("{:?}", it.step()) };
        waits.push((not_before - now).as_secs());
        now = not_before;
    }
    assert_eq!((&waits[..7], waits[99]), (&[1, 2, 4, 8, 16, 32, 60][..], 60));
    it.platform(Err(Failure::Lasting), now);
    assert_eq!(it.step(), Step::Maintain { read_disk_at: None });
}

#[test]
fn an_absent_medium_opens_maintenance_and_is_awaited_until_an_operator_submits_documents() {
    let mut it = start();
    it.disk(Ok(None), Uptime::ZERO);
    assert!(!it.awaits_medium());
    it.platform(Err(Failure::Absent), Uptime::ZERO);
    for outcome in [Ok(None), Err(Failure::Absent), Err(Failure::Passing), Err(Failure::Lasting)] {
        it.platform(outcome, seconds(1));
        assert_eq!((it.step(), it.awaits_medium()), (Step::Maintain { read_disk_at: None }, true));
    }
    let waiting = it.clone();
    it.platform(Ok(Some(documents(ROOT))), seconds(2));
    assert!(matches!(it.step(), Step::Done { source: Source::Platform, .. }));
    assert!(!it.awaits_medium());
    let mut it = waiting;
    it.submit(documents(LOG)).unwrap();
    assert_eq!((it.step(), it.awaits_medium()), (Step::Maintain { read_disk_at: None }, false));
}

#[test]
fn documents_without_the_root_wait_for_it_and_are_merged_with_it() {
    for from_disk in [Some(documents(LOG)), None] {
        let mut it = start();
        let has_partial = from_disk.is_some();
        it.disk(Ok(from_disk), Uptime::ZERO);
        if !has_partial {
            it.platform(Ok(Some(documents(LOG))), Uptime::ZERO);
        }
        assert_eq!(it.step(), Step::Maintain { read_disk_at: None });
        assert_eq!(it.partial(), Some(&documents(LOG)));
        it.submit(documents(ROOT)).unwrap();
        let Step::Done { documents, .. } = it.step() else { panic!("{:?}", it.step()) };
        let kinds: Vec<_> = documents.documents().iter().map(|document| document.kind()).collect();
        assert_eq!(kinds, ["KmsgLogConfig", "v1alpha1"]);
        assert_eq!(it.partial(), None);
    }
}

#[test]
fn parts_can_be_submitted_one_after_the_other() {
    let mut it = start();
    it.disk(Ok(None), Uptime::ZERO);
    it.platform(Ok(None), Uptime::ZERO);
    it.submit(documents(LOG)).unwrap();
    assert_eq!(it.step(), Step::Maintain { read_disk_at: None });
    it.submit(documents(&LOG.replace("name: a", "name: b"))).unwrap();
    assert_eq!(it.partial().unwrap().documents().len(), 2);
    it.submit(documents(ROOT)).unwrap();
    assert!(matches!(it.step(), Step::Done { source: Source::Maintenance, .. }));
}

#[test]
fn what_is_not_valid_changes_nothing() {
    let mut it = start();
    assert!(matches!(it.submit(documents(ROOT)), Err(SubmitError::NotInMaintenance)));
    it.disk(Ok(None), Uptime::ZERO);
    it.platform(Ok(None), Uptime::ZERO);
    let bad = documents("version: v1alpha1\nmachine: {type: worker}\n");
    assert!(matches!(it.submit(bad), Err(SubmitError::Invalid(_))));
    assert_eq!((it.step(), it.partial()), (Step::Maintain { read_disk_at: None }, None));
}
