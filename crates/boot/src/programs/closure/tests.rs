//! Programs and libraries made by the machine's own compiler, in roots made by hand.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use estive_archive::Kind;
use proptest::prelude::*;

use super::super::{Program, Wanted, elf};
use super::*;

const LINKER: &str = "/lib64/ld-test.so.1";

struct Root(tempfile::TempDir);

impl Root {
    /// Usr-merged, with a linker.
    fn new() -> Root {
        let root = Root(tempfile::tempdir().unwrap());
        for directory in ["usr/lib", "usr/lib64", "usr/sbin", "etc"] {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        for name in ["lib", "lib64", "sbin"] {
            symlink(format!("usr/{name}"), root.path(name)).unwrap();
        }
        root.library("/usr/lib64/ld-test.so.1", "ld-test.so.1", &[], &[]);
        root
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn compile(&self, path: &str, needs: &[&str], words: &[&str]) {
        let file = self.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let mut command = Command::new("cc");
        command
            .args(["-nostdlib", "-x", "c", "/dev/null", "-x", "none"])
            .args(["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"])
            .args(words)
            .args(needs.iter().map(|need| self.path(need)))
            .arg("-o")
            .arg(&file);
        let output = command.output().expect("a C compiler links this test too");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }

    fn library(&self, path: &str, soname: &str, needs: &[&str], words: &[&str]) {
        let soname = format!("-Wl,-soname,{soname}");
        let own = ["-shared", &soname];
        self.compile(path, needs, &[&own, words].concat());
    }

    fn program(&self, path: &str, needs: &[&str], words: &[&str]) {
        let linker = format!("-Wl,--dynamic-linker,{LINKER}");
        let own = ["-pie", "-Wl,-e,0", &linker];
        self.compile(path, needs, &[&own, words].concat());
    }

    fn collect(&self, name: &'static str) -> Result<Programs> {
        let wanted = Wanted {
            program: Program {
                name,
                package: "its-package",
            },
            asked_by: "lvm2:/dev/vg/root".to_owned(),
        };
        collect(self.0.path(), &[wanted])
    }

    fn fails(&self, name: &'static str) -> String {
        self.collect(name).unwrap_err().to_string()
    }
}

/// Path and what is there, of everything but directories.
fn shown(programs: &Programs) -> BTreeMap<String, String> {
    programs
        .members()
        .filter_map(|member| {
            let what = match member.kind {
                Kind::File(bytes) if bytes.starts_with(b"\x7fELF") => "file".to_owned(),
                Kind::File(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Kind::Symlink(target) => format!("-> {target}"),
                _ => return None,
            };
            Some((member.path.to_owned(), what))
        })
        .collect()
}

#[test]
fn a_program_comes_with_what_its_linker_finds() {
    let root = Root::new();
    fs::write(root.path("etc/ld.so.conf"), "include /etc/more/*\n").unwrap();
    fs::create_dir(root.path("etc/more")).unwrap();
    fs::write(root.path("etc/more/a"), "/opt/common\n").unwrap();
    root.library(
        "/opt/common/libdeep.so",
        "libdeep.so",
        &["/usr/lib64/ld-test.so.1"],
        &[],
    );
    root.library("/usr/lib/libdeep.so", "libdeep.so", &[], &[]);
    root.library(
        "/usr/lib/libplain.so.1.2",
        "libplain.so.1",
        &["/opt/common/libdeep.so"],
        &[],
    );
    symlink("libplain.so.1.2", root.path("usr/lib/libplain.so.1")).unwrap();
    root.library(
        "/opt/p/lib/libown.so",
        "libown.so",
        &["/usr/lib/libplain.so.1"],
        &[],
    );
    root.program(
        "/opt/p/bin/prog-2",
        &["/opt/p/lib/libown.so", "/usr/lib/libplain.so.1"],
        &["-Wl,--enable-new-dtags,-rpath,$ORIGIN/../lib"],
    );
    symlink("/opt/p/bin/prog-2", root.path("usr/sbin/prog")).unwrap();

    let programs = root.collect("prog").unwrap();
    let expected = [
        ("lib/estive/.libraries", "/opt/common:/lib"),
        ("lib/estive/prog", "-> /opt/p/bin/prog-2"),
        ("lib/libplain.so.1", "file"),
        ("lib64/ld-test.so.1", "file"),
        ("opt/common/libdeep.so", "file"),
        ("opt/p/bin/prog-2", "file"),
        ("opt/p/lib/libown.so", "file"),
    ];
    let expected = expected.map(|(path, what)| (path.to_owned(), what.to_owned()));
    assert_eq!(shown(&programs), BTreeMap::from(expected));
    assert!(programs.size_bytes() > 0);
    // A directory comes before what lies in it.
    let mut seen = BTreeSet::from([String::new()]);
    for member in programs.members() {
        let parent = member
            .path
            .rsplit_once('/')
            .map_or("", |(parent, _)| parent);
        assert!(seen.contains(parent), "{}", member.path);
        seen.insert(member.path.to_owned());
    }
}

#[test]
fn an_old_rpath_reaches_what_its_libraries_need_and_a_runpath_does_not() {
    let root = Root::new();
    root.library("/opt/x/libdeep.so", "libdeep.so", &[], &[]);
    root.library("/opt/x/libtop.so", "libtop.so", &["/opt/x/libdeep.so"], &[]);
    let needs = ["/opt/x/libtop.so"];
    let words = |tags: &str| format!("-Wl,--{tags}-new-dtags,-rpath,/opt/x,-rpath-link,/opt/x");
    let searched = root.path("/opt/x");
    let link = format!("-Wl,-rpath-link,{}", searched.display());
    root.program("/usr/sbin/old", &needs, &[&words("disable"), &link]);
    root.program("/usr/sbin/new", &needs, &[&words("enable"), &link]);
    assert!(shown(&root.collect("old").unwrap()).contains_key("opt/x/libdeep.so"));
    let error = root.fails("new");
    assert!(
        error.contains("libtop.so needs the library libdeep.so"),
        "{error}"
    );
}

#[test]
fn an_absent_program_names_its_package_and_who_asked() {
    let root = Root::new();
    let error = root.fails("lvm");
    for part in ["lvm2:/dev/vg/root needs the program lvm", "its-package"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_lies_outside_the_root_is_not_there() {
    let root = Root::new();
    let outside = Root::new();
    outside.program("/prog", &[], &[]);
    outside.library("/libout.so", "libout.so", &[], &[]);
    symlink(outside.path("/prog"), root.path("usr/sbin/link")).unwrap();
    symlink(
        "../../../../../../../../../proc/self/exe",
        root.path("usr/sbin/up"),
    )
    .unwrap();
    for name in ["link", "up"] {
        assert!(root.fails(name).contains("does not have"), "{name}");
    }
    root.library("/usr/lib/libout.so", "libout.so", &[], &[]);
    root.program("/usr/sbin/prog", &["/usr/lib/libout.so"], &[]);
    fs::remove_file(root.path("usr/lib/libout.so")).unwrap();
    symlink(outside.path("/libout.so"), root.path("usr/lib/libout.so")).unwrap();
    assert!(root.fails("prog").contains("needs the library libout.so"));
}

#[test]
fn files_that_are_no_programs_are_refused_with_the_reason() {
    let root = Root::new();
    root.program("/usr/sbin/whole", &[], &[]);
    let whole = fs::read(root.path("usr/sbin/whole")).unwrap();
    let mut other_machine = whole.clone();
    // EM_AARCH64 as e_machine.
    other_machine[18] = 183;
    for (name, bytes, reason) in [
        (
            "script",
            b"#! /bin/sh\necho".to_vec(),
            "a script of /bin/sh",
        ),
        ("text", b"no program".to_vec(), "no ELF file"),
        ("empty", Vec::new(), "no ELF file"),
        ("short", whole[..70].to_vec(), "broken ELF"),
        ("other", other_machine, "another machine"),
    ] {
        fs::write(root.path("usr/sbin").join(name), bytes).unwrap();
        let error = root.fails(name);
        assert!(error.contains(reason) && error.contains(name), "{error}");
    }
    fs::remove_file(root.path("usr/lib64/ld-test.so.1")).unwrap();
    assert!(root.fails("whole").contains("ld-test.so.1"));
}

#[test]
fn a_library_for_another_machine_is_passed_over_and_a_broken_one_is_not() {
    let root = Root::new();
    root.library("/usr/lib/libx.so", "libx.so", &[], &[]);
    root.program("/usr/sbin/prog", &["/usr/lib/libx.so"], &[]);
    let mut bytes = fs::read(root.path("usr/lib/libx.so")).unwrap();
    // ELFCLASS32, in a directory that is looked through first.
    bytes[4] = 1;
    fs::write(root.path("usr/lib64/libx.so"), &bytes).unwrap();
    assert!(shown(&root.collect("prog").unwrap()).contains_key("lib/libx.so"));
    fs::write(root.path("usr/lib64/libx.so"), "INPUT(libx.so.1)").unwrap();
    assert!(root.fails("prog").contains("lib64/libx.so cannot go"));
}

#[test]
fn two_libraries_of_one_name_are_refused() {
    let root = Root::new();
    root.library("/usr/lib/libx.so", "libx.so", &[], &[]);
    root.library(
        "/usr/lib/libcommon.so",
        "libcommon.so",
        &["/usr/lib/libx.so"],
        &[],
    );
    root.library("/opt/libx.so", "libx.so", &[], &["-Wl,-z,now"]);
    root.library(
        "/opt/liby.so",
        "liby.so",
        &["/opt/libx.so"],
        &["-Wl,--enable-new-dtags,-rpath,/opt"],
    );
    let link = format!("-Wl,-rpath-link,{}", root.path("/opt").display());
    root.program("/usr/sbin/one", &["/usr/lib/libcommon.so"], &[]);
    let words = [link.as_str(), "-Wl,--disable-new-dtags,-rpath,/opt"];
    root.program("/usr/sbin/other", &["/opt/liby.so"], &words);
    let wanted = ["one", "other"].map(|name| Wanted {
        program: Program { name, package: "p" },
        asked_by: String::new(),
    });
    assert!(collect(root.0.path(), &wanted[..1]).is_ok());
    let error = collect(root.0.path(), &wanted).unwrap_err().to_string();
    assert!(error.contains("two libraries called libx.so"), "{error}");
}

#[test]
fn a_library_opened_later_comes_along_where_there_is_one() {
    let root = Root::new();
    root.program("/usr/sbin/cryptsetup", &[], &[]);
    let has = |programs: &Programs| shown(programs).contains_key("lib/libgcc_s.so.1");
    assert!(!has(&root.collect("cryptsetup").unwrap()));
    root.library("/usr/lib/libgcc_s.so.1", "libgcc_s.so.1", &[], &[]);
    assert!(has(&root.collect("cryptsetup").unwrap()));
}

#[test]
fn no_path_leaves_the_top() {
    assert_eq!(clean("/a/../../b/./c//d").as_deref(), Some("/b/c/d"));
    assert_eq!(clean("a/b"), None);
    assert_eq!(
        expand("$ORIGIN/../lib", "/opt/bin/x").as_deref(),
        Some("/opt/bin/../lib")
    );
    assert_eq!(expand("/opt/$LIB", "/opt/bin/x"), None);
}

fn compiled() -> &'static [u8] {
    static COMPILED: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    COMPILED.get_or_init(|| {
        let root = Root::new();
        root.library("/usr/lib/libx.so", "libx.so", &[], &[]);
        root.program("/usr/sbin/x", &["/usr/lib/libx.so"], &["-Wl,-rpath,/a:/b"]);
        fs::read(root.path("usr/sbin/x")).unwrap()
    })
}

#[test]
fn the_dynamic_section_is_read() {
    let elf = elf::parse(compiled()).unwrap();
    assert_eq!(elf.interpreter.as_deref(), Some(LINKER));
    assert_eq!(elf.needed, ["libx.so"]);
    assert_eq!(elf.runpath.unwrap_or(elf.rpath), ["/a", "/b"]);
    assert!(Path::new(LINKER).is_absolute());
}

proptest! {
    #[test]
    fn spoilt_files_never_panic(changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..20), length in 0usize..20_000) {
        let mut bytes = compiled().to_vec();
        for (place, byte) in changes {
            if let Some(spoilt) = bytes.get_mut(place) {
                *spoilt = byte;
            }
        }
        bytes.truncate(length);
        let _ = elf::parse(&bytes);
    }
}
