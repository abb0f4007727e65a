//! Lines that are understood, lines that are refused, and the table itself.

use proptest::prelude::*;

use super::block::Which;
use super::luks::Key;
use super::md::Array;
use super::*;
use crate::root_line::Problem;

fn root(text: &str) -> Root {
    Root::parse(text).unwrap_or_else(|problem| panic!("{}", problem.pointed()))
}

fn refused(text: &str) -> Problem {
    Root::parse(text).expect_err(text)
}

#[test]
fn every_loader_can_be_written_as_its_example_says() {
    for loader in LOADERS {
        let root = root(loader.example);
        let names = |device: &Device| -> Vec<&str> {
            let stages = device.stages.iter();
            stages.map(|stage| stage.loader().name).collect()
        };
        assert!(
            root.devices
                .iter()
                .any(|device| names(device).contains(&loader.name)),
            "{}",
            loader.example
        );
        assert_eq!(root.to_string(), loader.example);
    }
}

#[test]
fn places_go_to_the_stages_from_left_to_right() {
    let root = root("lvm2+md:/dev/vg/volume:/dev/md0,/dev/md1:ro");
    let [device] = &root.devices[..] else {
        panic!()
    };
    assert_eq!(device.access, Access::ReadOnly);
    let [Stage::Lvm2(lvm2), Stage::Md(md)] = &device.stages[..] else {
        panic!("{device:?}")
    };
    assert_eq!(
        (lvm2.group.as_str(), lvm2.volume.as_str()),
        ("vg", "volume")
    );
    assert_eq!(md.arrays, ["0", "1"].map(|name| Array::Name(name.into())));
}

#[test]
fn a_key_of_two_parts_takes_the_option_behind() {
    let key = |text: &str| match &root(text).devices[0].stages[..] {
        [Stage::Luks(options), ..] => options.key.clone(),
        other => panic!("{other:?}"),
    };
    let port = Key::Port("ro".into());
    assert_eq!(key("luks+block:/dev/a:key=serial:ro"), port);
    assert_eq!(key("luks+block:/dev/a:key=[serial:ro]:ro"), port);
    let file = Key::FwCfg("opt/k".into());
    assert_eq!(key("luks+block:key=fw_cfg:opt/k:UUID=1"), file);
    assert_eq!(key("luks+block:/dev/a:key=ask:ro"), Key::Ask);
    assert_eq!(key("luks+block:/dev/a"), Key::Usual);
    let chain = root("luks+lvm2+md:/dev/vg/v:/dev/md/x:degraded:key=ask");
    assert_eq!(chain.devices[0].stages.len(), 3);
}

#[test]
fn programs_are_needed_by_the_device_that_names_them_first() {
    let needs = root("/dev/a;luks+lvm2:/dev/vg/v;lvm2:/dev/vg/w").needs();
    let asked: Vec<(&str, &str)> = needs
        .programs
        .iter()
        .map(|wanted| (wanted.program.name, wanted.asked_by.as_str()))
        .collect();
    let by = "luks+lvm2:/dev/vg/v";
    assert_eq!(asked, [("cryptsetup", by), ("lvm", by)]);
}

#[test]
fn a_place_that_may_be_left_out_is_filled_when_there_is_one_to_spare() {
    let file = |text: &str| match &root(text).devices[0].stages[..] {
        [Stage::Loop(options), ..] => options.file.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(file("loop+nfs:10.0.0.1:/images"), None);
    assert_eq!(
        file("loop+nfs:/a.img:10.0.0.1:/images").as_deref(),
        Some("/a.img")
    );
    assert_eq!(file("loop+block:/a.img:UUID=1").as_deref(), Some("/a.img"));
    let Stage::Erofs(erofs) = &root("erofs").devices[0].stages[0] else {
        panic!()
    };
    assert_eq!(erofs.which, Which::Serial("estive-root".into()));
}

#[test]
fn what_is_refused_is_pointed_at() {
    for (text, at, words) in [
        ("nsf:a:/", 0, "no loader \"nsf\": there are block"),
        (
            "/dev/sda;evms2:x",
            9,
            "device-mapper replaced EVMS. Write lvm2:",
        ),
        ("dmraid:/dev/a", 0, "Write md:/dev/md0"),
        ("quickinstallcd", 0, "Write livecd"),
        (
            "luks+block:/dev/a:key=serial",
            18,
            "a key comes from serial:PORT",
        ),
        (
            "luks+block:/dev/a:key=secret",
            18,
            "a key comes from serial:PORT",
        ),
        ("luks+block:/dev/a:key=ask:me", 26, "one option too many"),
        ("lvm2:/dev/vg", 5, "a volume is written /dev/GROUP/VOLUME"),
        ("lvm2:/dev/-vg/x", 5, "LVM has no name"),
        ("md:/dev/sda", 3, "write /dev/md0 or /dev/md/NAME"),
        ("md:/dev/md0,/dev/md/0", 3, "written twice"),
        ("md:UUID=1", 3, "32 hexadecimal digits"),
        ("luks", 0, "`luks` works on a device: write luks+"),
        (
            "luks+nfs:a:/",
            0,
            "`luks` works on a device, and `nfs` gives a directory",
        ),
        (
            "tmpfs+block:/dev/sda",
            0,
            "`block` cannot stand to its right",
        ),
        (
            "nfs:10.0.0.1",
            4,
            "EXPORT of `nfs` is missing: write nfs:SERVER:EXPORT",
        ),
        ("nfs:10.0.0.1:/:x:ro", 15, "\"x\" is one option too many"),
        ("nfs:UUID=1:/", 4, "has no option UUID="),
        (
            "lvm2+block:UUID=1:/dev/sda",
            11,
            "VOLUME of `lvm2` cannot be written as UUID=",
        ),
        (
            "tmpfs:siez=1m",
            6,
            "has no option siez= (it has size=, mode=, ro, rw, fs=)",
        ),
        ("tmpfs:size=1x", 6, "a size is a number"),
        ("tmpfs:size=1m:size=2m", 14, "size is written twice"),
        ("tmpfs:mode=9", 6, "octal"),
        ("tmpfs:ro:rw", 9, "not both"),
        ("tmpfs:rw;/dev/sda", 0, "only the top device"),
        ("block:sda", 6, "\"sda\" is no device"),
        ("/dev/../etc", 0, "is no device"),
        ("UUID=", 0, "DEVICE is empty"),
        ("/dev/disk/by-path/x", 0, "no such link this early"),
        ("/dev/sda:fs=../x", 9, "lower-case letters"),
        ("loop:a/b", 5, "whole path"),
    ] {
        let problem = refused(text);
        assert_eq!(problem.at, at, "{text}: {problem}");
        assert!(problem.message.contains(words), "{text}: {problem}");
    }
}

#[test]
fn a_line_needs_what_its_devices_do() {
    let needs = root("/dev/sda1;tmpfs").needs();
    assert_eq!(needs.modules, ["overlay"]);
    assert!(needs.modules_if_there.contains(&"virtio_blk".to_owned()));
    assert!(needs.modules_at_hand.contains(&"xfs".to_owned()));
    assert!(!needs.network && !needs.identity);
    let needs = root("/dev/sda1:fs=xfs;nfs:a:/").needs();
    assert!(needs.modules.contains(&"xfs".to_owned()) && needs.network);
    // What is named is not recognised among others: those stay out of the initramfs.
    let at_hand = |line: &str| {
        let needs = root(line).needs();
        let has = |module: &&str| needs.modules_at_hand.contains(&(*module).to_owned());
        let found = ["xfs", "ext4", "btrfs", "f2fs", "isofs", "vfat"].into_iter();
        (
            needs.modules.last().cloned().unwrap_or_default(),
            found.filter(has).count(),
        )
    };
    assert_eq!(at_hand("/dev/sda1:fs=xfs"), ("xfs".to_owned(), 0));
    assert_eq!(
        at_hand("luks+block:/dev/sda1:fs=ext3"),
        ("ext4".to_owned(), 0)
    );
    assert_eq!(at_hand("/dev/sr0:fs=iso9660"), ("isofs".to_owned(), 0));
    assert_eq!(at_hand("/dev/sda1:fs=xfs;/dev/sdb1").1, 6);
    let needs = root("erofs;estive;tmpfs").needs();
    assert!(needs.identity);
    assert!(needs.modules_if_there.contains(&"virtio_net".to_owned()));
}

#[test]
fn the_table_says_everything_once() {
    let mut names: Vec<&str> = LOADERS.iter().map(|loader| loader.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), LOADERS.len());
    for loader in LOADERS {
        assert!(loader.help.ends_with('.'), "{}", loader.name);
        let mut seen = std::collections::BTreeSet::new();
        for parameter in loader.parameters {
            assert!(seen.insert(parameter.name), "{}", loader.name);
            let is_common = COMMON.iter().any(|common| common.name == parameter.name);
            assert!(!is_common, "{} has {}", loader.name, parameter.name);
            let is_needed = matches!(
                parameter.form,
                Form::Place {
                    optional: false,
                    ..
                }
            );
            assert_eq!(
                parameter.default.is_empty(),
                is_needed,
                "{}",
                parameter.name
            );
        }
    }
}

proptest! {
    #[test]
    fn any_line_is_understood_or_refused(text in "([a-z9]{2,6}|block|nfs|loop|luks|tmpfs|9p)(\\+(block|nfs|md|url))?(:(ro|rw|/dev/a|UUID=1|size=1m|[a-z/]{1,4})){0,4}(;(tmpfs|estive))?") {
        if let Ok(root) = Root::parse(&text) {
            prop_assert_eq!(Root::parse(&root.to_string()).map(|root| root.devices.len()), Ok(root.devices.len()));
            root.needs();
        }
    }
}
