//! Scripts that try what they may not: each ends in a clear error or sees nothing, leaves no process, and changes nothing.

mod common;

use std::fs;
use std::path::Path;

use common::Bench;

#[test]
fn the_network_is_not_there() {
    let bench = Bench::new("network");
    let error = bench.fails("#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/22\n");
    assert!(error.contains("Operation not permitted"), "{error}");
    for call in [
        "socket(S, Socket::AF_INET, Socket::SOCK_STREAM, 0)",
        "socket(S, Socket::AF_UNIX, Socket::SOCK_DGRAM, 0)",
        // AF_PACKET, and ping's own kind.
        "socket(S, 17, Socket::SOCK_RAW, 0)",
        "socket(S, Socket::AF_INET, Socket::SOCK_DGRAM, 1)",
        "socketpair(S, T, Socket::AF_UNIX, Socket::SOCK_STREAM, 0)",
    ] {
        let error = bench.fails(&format!(
            "#!/usr/bin/perl\nuse Socket; {call} or die \"refused: $!\";\n"
        ));
        assert!(
            error.contains("refused: Operation not permitted"),
            "{call}: {error}"
        );
    }
    let said = bench.prints(
        "#!/usr/bin/perl\nopen F, '>said'; @r = gethostbyname('example.org'); print F @r ? 'resolved' : 'not resolved';",
    );
    assert_eq!(said, "not resolved");
}

#[test]
fn files_of_the_host_are_not_there() {
    let bench = Bench::new("host");
    let secret = bench.home().join("secret");
    fs::write(&secret, "of the host").unwrap();
    let ways = [
        secret.display().to_string(),
        format!("/estive/../../../../../../{}", secret.display()),
        format!("../../../../../../..{}", secret.display()),
        format!("/proc/1/root{}", secret.display()),
        format!("/proc/self/root{}", secret.display()),
        "/proc/1/environ".to_owned(),
        "/proc/mounts".to_owned(),
        "/sys/kernel".to_owned(),
        "/dev/sda /dev/vda /dev/loop0 /dev/mem /dev/kvm /dev/tty".to_owned(),
        "/etc/shadow /etc/passwd /root /estive/../etc/shadow".to_owned(),
    ];
    for way in ways {
        let said = bench.prints(&format!(
            "#!/bin/bash\nfor way in {way}; do [ -e \"$way\" ] && echo \"$way\"; done > said; :"
        ));
        assert_eq!(said, "", "{way}");
    }
    // A link in the reference that leads out leads to nothing.
    std::os::unix::fs::symlink(&secret, bench.root().join("etc/out")).unwrap();
    let error = bench.fails("#!/bin/sh\ncat /etc/out\n");
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn files_that_whoever_asks_has_open_are_not_there() {
    let mut bench = Bench::new("inherited");
    let secret = bench.home().join("secret");
    fs::write(&secret, "of the host").unwrap();
    // As a supervisor, a lock or a shell leaves them to what it starts.
    let program = bench.home().join("program");
    let text = format!(
        "#!/bin/sh\nexec 8</ 9<{} {} \"$@\"\n",
        secret.display(),
        bench.worker.program.display()
    );
    let written = bench.home().join("text");
    fs::write(&written, text).unwrap();
    common::install(&written, &program);
    bench.worker = estive_sandbox::Worker::of(program);
    let said = bench.prints("#!/bin/bash\ncat <&9 > said 2>/tmp/x || echo nothing > said\n");
    assert_eq!(said, "nothing\n");
    let said = bench.prints(
        "#!/usr/bin/perl\nopen F, '>said'; print F opendir(D, '/proc/self/fd') ? 'listed' : 'no'; \
         for (3..64) { next if $_ == fileno F; print F \" $_\" if open G, \"<&=$_\" and -e G }",
    );
    assert_eq!(said, "no");
}

#[test]
fn what_root_alone_may_read_in_the_reference_is_closed() {
    if !common::is_root() {
        return;
    }
    let bench = Bench::new("shadow");
    let shadow = bench.root().join("etc/shadow");
    fs::write(&shadow, "root:secret").unwrap();
    fs::set_permissions(&shadow, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let error = bench.fails("#!/bin/sh\ncat /etc/shadow\n");
    assert!(error.contains("Permission denied"), "{error}");
}

#[test]
fn nothing_can_be_written_but_its_own() {
    let bench = Bench::new("writes");
    let before = listing(&bench.root());
    for place in [
        "/x",
        "/etc/x",
        "/etc/marker",
        "/usr/bin/sh",
        "/estive/x",
        "/estive/set/x",
        "/estive/set/etc/motd.j2",
        "/dev/x",
        "/proc/x",
        "/home/x",
    ] {
        let error = bench.fails(&format!("#!/bin/sh\necho x > {place}\n"));
        assert!(
            error.contains("Read-only file system") || error.contains("Permission denied"),
            "{place}: {error}"
        );
    }
    for command in [
        "rm -rf /etc /usr/lib",
        "ln /etc/marker marker",
        "chmod 777 /etc",
        "mount -o remount,rw /",
    ] {
        bench.fails(&format!("#!/bin/sh\n{command}\n"));
    }
    assert_eq!(listing(&bench.root()), before);
}

fn listing(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(next).unwrap().flatten() {
            let stat = entry.path().symlink_metadata().unwrap();
            let mode = std::os::unix::fs::PermissionsExt::mode(&stat.permissions());
            found.push(format!(
                "{} {mode:o} {}",
                entry.path().display(),
                stat.len()
            ));
            if stat.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn rights_cannot_be_got() {
    let bench = Bench::new("rights");
    for command in [
        "unshare --user true",
        "unshare --mount true",
        "mount -t tmpfs x /tmp",
        "mount -t proc x /tmp",
        "mknod null c 1 3",
        "mknod disk b 8 0",
        "hostname other",
        "chmod 777 /dev/null",
    ] {
        bench.fails(&format!("#!/bin/bash\n{command}\n"));
    }
    // ptrace, clone3 (by number: 101 and 435 on x86-64), and clone with a user namespace.
    for (call, words) in [
        ("syscall(101, 16, 1, 0, 0)", "Operation not permitted"),
        ("syscall(435, 0, 0)", "Function not implemented"),
        (
            "syscall(56, 0x10000000, 0, 0, 0, 0)",
            "Operation not permitted",
        ),
        ("syscall(0x40000000 + 39)", "Function not implemented"),
        ("syscall(319, $ENV{HOME}, 0)", "Operation not permitted"),
    ] {
        let error = bench.fails(&format!(
            "#!/usr/bin/perl\n{call} == -1 and die \"refused: $!\";\n"
        ));
        assert!(
            error.contains(&format!("refused: {words}")),
            "{call}: {error}"
        );
    }
    // Its first process cannot be killed by it, and no other can be seen.
    let said = bench.prints("#!/bin/bash\nkill -9 1; for pid in {2..300}; do [ $pid != $$ ] && kill -0 $pid && echo $pid; done > said 2>/dev/null; :");
    assert_eq!(said, "");
}

#[test]
fn a_fork_bomb_ends() {
    let mut bench = Bench::new("bomb");
    bench.limits.wall_ms = 3000;
    let error = bench.fails("#!/bin/bash\nbomb() { bomb | bomb & }\nbomb\n");
    assert!(
        error.contains("left processes running")
            || error.contains("did not end within")
            || error.contains("exit code"),
        "{error}"
    );
    // Itself, its first process and sixty-two more.
    let said = bench.prints(
        "#!/usr/bin/perl
open F, '>said';
for (1..200) { $p = fork; last unless defined $p; $p or do { sleep 1000; exit }; push @p, $p }
print F scalar @p, \" $!\"; kill 9, @p",
    );
    assert_eq!(said, "62 Resource temporarily unavailable");
}

#[test]
fn memory_is_limited_for_one_and_for_all() {
    let mut bench = Bench::new("memory");
    let error = bench.fails("#!/usr/bin/perl\n$x = 'x' x 1000; while (1) { $x .= $x }\n");
    assert!(error.contains("Out of memory"), "{error}");
    bench.limits.memory_bytes = 256 << 20;
    let error = bench.fails(
        "#!/usr/bin/perl\nfor (1..8) { fork or do { $x = 'x' x 100_000_000; sleep 1000 } }\nsleep 1000\n",
    );
    assert!(
        error.contains("took more than 256 MiB of memory together"),
        "{error}"
    );
}

#[test]
fn its_output_is_limited() {
    let mut bench = Bench::new("fills");
    bench.limits.output_bytes = 4 << 20;
    bench.limits.output_files = 100;
    for (script, words) in [
        (
            "dd if=/dev/zero of=x bs=1M 2>/dev/null; :",
            "filled its output, which holds 4 MiB",
        ),
        (
            "for i in $(eval echo {1..200}); do echo > $i; done 2>/dev/null; :",
            "filled its output, which holds 100 files",
        ),
        (
            "dd if=/dev/zero of=/tmp/x bs=1M 2>/dev/null; :",
            "filled its /tmp, which holds 4 MiB",
        ),
        (
            "dd if=/dev/zero of=x bs=1M",
            "filled its output, which holds 4 MiB, and ended with the exit code 1",
        ),
        // Holes are bytes too.
        (
            "for i in 1 2 3; do truncate -s 2M $i; done",
            "left more than 4 MiB of files",
        ),
        ("exec truncate -s 10G x", "wrote a file of more than 16 MiB"),
    ] {
        let error = bench.fails(&format!("#!/bin/bash\n{script}\n"));
        assert!(error.contains(words), "{script}: {error}");
    }
    bench.limits = estive_sandbox::Limits::default();
    for (script, words) in [
        ("dd if=/dev/zero of=x bs=1M", "16 MiB"),
        (
            "for i in {1..40}; do mkdir d; cd d; done",
            "deeper than 32 levels",
        ),
    ] {
        let error = bench.fails(&format!("#!/bin/bash\n{script}\n"));
        assert!(error.contains(words), "{script}: {error}");
    }
}

#[test]
fn time_is_limited() {
    let mut bench = Bench::new("time");
    bench.limits.wall_ms = 3000;
    let error = bench.fails("#!/bin/sh\necho waiting\nexec sleep 100000\n");
    assert!(
        error.contains("did not end within 3000 ms: waiting"),
        "{error}"
    );
    // Also when it hears no signal.
    let error = bench.fails("#!/bin/sh\ntrap '' TERM INT HUP XCPU\nwhile :; do :; done\n");
    assert!(error.contains("did not end within"), "{error}");
    bench.limits.wall_ms = 60_000;
    bench.limits.cpu_s = 1;
    let error = bench.fails("#!/bin/sh\nwhile :; do :; done\n");
    assert!(error.contains("more than 1 s of processor time"), "{error}");
}

#[test]
fn no_daemon_outlives_it() {
    let bench = Bench::new("daemon");
    let error = bench.fails(
        "#!/bin/bash\nsetsid bash -c 'while :; do sleep 1; done' $0 </dev/null >/dev/null 2>&1 &\ndisown; exit 0\n",
    );
    assert!(error.contains("left processes running"), "{error}");
    // One that is soon done may finish its work.
    let said = bench.prints("#!/bin/bash\n(sleep 0.1; echo late > said) &\n");
    assert_eq!(said, "late\n");
}

#[test]
fn what_it_may_not_leave_is_refused_by_name() {
    let mut bench = Bench::new("refused");
    for (script, words) in [
        (
            "ln -s ../x etc-link",
            "the link /etc-link to \"../x\", which leads out",
        ),
        (
            "mkdir d; ln -s ../../etc/shadow d/l",
            "the link /d/l to \"../../etc/shadow\", which leads out",
        ),
        ("mkfifo pipe", "a named pipe at /pipe"),
        ("mknod white c 0 0", "a device at /white"),
        ("touch su; chmod 4755 su", "/su with the mode 4755"),
        ("mkdir sg; chmod 2755 sg", "/sg with the mode 2755"),
        ("touch $'\\xff'", "which is not UTF-8"),
    ] {
        let error = bench.fails(&format!("#!/bin/bash\n{script}\n"));
        assert!(error.contains(words), "{script}: {error}");
    }
    bench.modes_given.insert("su".to_owned());
    bench.run("#!/bin/bash\ntouch su; chmod 4755 su\n").unwrap();
}

#[test]
fn it_cannot_flood_us_with_words() {
    let bench = Bench::new("words");
    let error = bench.fails("#!/bin/sh\nexec yes 'a word too many' >&2\n");
    assert!(error.contains("printed more than 1 MiB: …"), "{error}");
    assert!(error.len() < 1500, "{}", error.len());
    let error = bench.fails("#!/bin/bash\nprintf '\\e[2Jgone\\a' >&2; exit 1\n");
    assert!(
        !error.contains('\u{1b}') && !error.contains('\u{7}'),
        "{error:?}"
    );
}
