use super::*;
use crate::layout::unfinished_name;

const GIB: u64 = 1 << 30;

fn disk(bytes: u64) -> Disk {
    Disk {
        path: "/dev/vda".into(),
        geometry: Geometry::new(512, bytes).unwrap(),
        alignment: 512,
        access: Access::Writable,
        used_by: Vec::new(),
    }
}

fn ids() -> impl FnMut() -> Guid {
    let mut next = 0;
    move || {
        next += 1;
        Guid::from_random([next; 16])
    }
}

fn planned(contents: &Contents, layout: Layout, treatment: Treatment) -> Result<Plan, Refusal> {
    plan(&disk(8 * GIB), contents, &Options::new(layout, treatment), ids())
}

/// Names of steps without their tables.
fn outline(plan: &Plan) -> Vec<String> {
    let describe = |step: &Step| match step {
        Step::BeginTable(table) => format!("begin {}", names(table)),
        Step::FinishTable(table) => format!("finish {}", names(table)),
        step => format!("{step:?}"),
    };
    plan.steps.iter().map(describe).collect()
}

fn names(table: &Table) -> String {
    table.partitions.iter().map(|partition| partition.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn installed(layout: Layout) -> Table {
    planned(&Contents::Empty, layout, Treatment::Force).unwrap().table
}

#[test]
fn an_empty_disk_gets_everything_and_its_names_last() {
    let plan = planned(&Contents::Empty, Layout::Grub, Treatment::Force).unwrap();
    let expected = [
        "begin EFI~ BIOS~ BOOT~ META~ STATE~ EPHEMERAL~",
        "WipePartition(Meta)",
        "WipePartition(State)",
        "WipePartition(Ephemeral)",
        "WriteMeta",
        "Fill(Efi)",
        "Fill(Boot)",
        "CoreImage",
        "finish EFI BIOS BOOT META STATE EPHEMERAL",
        "SetVariables",
    ];
    assert_eq!(outline(&plan), expected);
}

#[test]
fn a_disk_is_wiped_first_when_that_is_wanted() {
    let table = installed(Layout::Uki);
    let plan = planned(&Contents::Table(table), Layout::Uki, Treatment::Zero).unwrap();
    assert_eq!(outline(&plan)[..2], ["WipeDisk", "begin EFI~ META~ STATE~ EPHEMERAL~"]);
    assert!(outline(&plan).contains(&"WipePartition(State)".to_owned()));
}

/// A disk that is a system disk without its configuration would ask for one that the machine was given.
#[test]
fn a_state_that_is_made_anew_has_the_configuration_before_the_disk_is_a_system_disk() {
    let planned = |contents: &Contents, treatment| {
        let options = Options { state: State::Configuration, ..Options::new(Layout::Uki, treatment) };
        outline(&plan(&disk(8 * GIB), contents, &options, ids()).unwrap())
    };
    let end = ["Fill(Efi)", "Fill(State)", "finish EFI META STATE EPHEMERAL", "SetVariables"];
    let new = planned(&Contents::Empty, Treatment::Force);
    assert_eq!(new[new.len() - end.len()..], end);
    let old = installed(Layout::Uki);
    let mut moved = installed(Layout::Grub);
    moved.partitions.retain(|partition| partition.name != "BIOS");
    for kept in [old.clone(), moved] {
        assert!(!planned(&Contents::Table(kept), Treatment::Force).contains(&"Fill(State)".to_owned()));
    }
    assert!(planned(&Contents::Table(old), Treatment::Zero).contains(&"Fill(State)".to_owned()));
}

#[test]
fn meta_and_state_stay_where_they_are_in_a_second_installation() {
    let old = installed(Layout::Uki);
    let plan = planned(&Contents::Table(old.clone()), Layout::Uki, Treatment::Force).unwrap();
    let expected = ["begin EFI~ META STATE EPHEMERAL~", "WipePartition(Ephemeral)", "WriteMeta", "Fill(Efi)"];
    assert_eq!(outline(&plan)[..4], expected);
    let id = |table: &Table, name| table.by_name(name).map(|partition| partition.id);
    assert_eq!(id(&plan.table, "STATE"), id(&old, "STATE"));
}

#[test]
fn meta_and_state_move_when_the_layout_changes() {
    let old = installed(Layout::Grub);
    let mut moved = old.clone();
    moved.partitions.retain(|partition| partition.name != "BIOS");
    let plan = planned(&Contents::Table(moved), Layout::Uki, Treatment::Force).unwrap();
    let outline = outline(&plan);
    assert_eq!(outline[..3], ["Keep(Meta)", "Keep(State)", "begin EFI~ META~ STATE~ EPHEMERAL~"]);
    assert!(outline.contains(&"Restore(State)".to_owned()));
}

#[test]
fn an_upgrade_that_keeps_everything_changes_kernels_alone() {
    let old = installed(Layout::Uki);
    let plan = planned(&Contents::Table(old.clone()), Layout::Uki, Treatment::Untouched).unwrap();
    assert_eq!(outline(&plan), ["WriteMeta", "Add(Efi)", "Renew(Efi)", "SetVariables"]);
    assert_eq!(plan.table, old);
    let mut shared = old.clone();
    let other = Partition { number: 9, name: "data".into(), ..shared.partitions[0].clone() };
    shared.partitions.push(other);
    let plan = planned(&Contents::Table(shared), Layout::Uki, Treatment::Untouched).unwrap();
    assert_eq!(
        outline(&plan),
        ["WriteMeta", "Add(Efi)", "finish EFI META STATE EPHEMERAL", "Renew(Efi)", "SetVariables"]
    );
    let plan = planned(&Contents::Table(installed(Layout::Grub)), Layout::Grub, Treatment::Untouched).unwrap();
    assert_eq!(outline(&plan), ["WriteMeta", "Add(Boot)", "Renew(Bios)", "SetVariables"]);
    let missing = |label| Err(Refusal::Missing { disk: "/dev/vda".into(), label });
    assert_eq!(planned(&Contents::Empty, Layout::Uki, Treatment::Untouched), missing(Label::Meta));
    assert_eq!(planned(&Contents::Table(old), Layout::Grub, Treatment::Untouched), missing(Label::Bios));
}

#[test]
fn what_belongs_to_others_is_refused_without_wiping() {
    let refused = |contents: &Contents| match planned(contents, Layout::Uki, Treatment::Force) {
        Err(Refusal::Foreign { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    let mut other = installed(Layout::Uki);
    other.partitions[3].name = "data".into();
    assert_eq!(refused(&Contents::Table(other.clone())), ["partition 4 \"data\""]);
    assert_eq!(refused(&Contents::Other("an xfs file system".into())), ["an xfs file system"]);
    // The EFI partition of another system has the same name.
    let mut efi = installed(Layout::Uki);
    efi.partitions.truncate(1);
    assert_eq!(refused(&Contents::Table(efi)), ["partitions of another system"]);
    let wiped = planned(&Contents::Table(other), Layout::Uki, Treatment::Zero).unwrap();
    assert_eq!(wiped.steps[0], Step::WipeDisk);
}

#[test]
fn an_installation_that_was_cut_off_is_begun_again() {
    let mut cut = installed(Layout::Grub);
    for partition in &mut cut.partitions {
        partition.name = unfinished_name(Label::from_name(&partition.name).unwrap());
    }
    let plan = planned(&Contents::Table(cut), Layout::Grub, Treatment::Force).unwrap();
    assert_eq!(outline(&plan)[0], "begin EFI~ BIOS~ BOOT~ META~ STATE~ EPHEMERAL~");
}

#[test]
fn disks_that_cannot_be_used_are_refused_with_the_reason() {
    let refusal = |disk: &Disk, options: &Options| plan(disk, &Contents::Empty, options, ids()).unwrap_err();
    let options = Options::new(Layout::Grub, Treatment::Zero);
    let name = || "/dev/vda".to_owned();
    let small = refusal(&disk(GIB), &options);
    assert!(matches!(small, Refusal::Layout { source: LayoutError::TooSmall { bytes: GIB, .. }, .. }), "{small}");
    let used = Disk { used_by: vec!["/var".into()], ..disk(8 * GIB) };
    assert_eq!(refusal(&used, &options), Refusal::InUse { disk: name(), by: vec!["/var".into()] });
    let read_only = Disk { access: Access::ReadOnly, ..disk(8 * GIB) };
    assert_eq!(refusal(&read_only, &options), Refusal::ReadOnly { disk: name() });
    let large = Disk { geometry: Geometry::new(4096, 8 * GIB).unwrap(), ..disk(8 * GIB) };
    assert_eq!(refusal(&large, &options), Refusal::SectorSize { disk: name(), sector_size: 4096 });
    let arm = Options { image: "arm64".into(), ..options };
    let refused = refusal(&disk(8 * GIB), &arm);
    assert_eq!(refused, Refusal::Architecture { image: "arm64".into(), machine: "amd64".into() });
}
