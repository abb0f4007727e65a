//! The network: addresses, names, NFS, and live CDs fetched over it.
//!
//! The machines' own network is QEMU's, which has a DHCP and a name server in it; what they reach as the host is the
//! loopback of a namespace of this thread. NFS Ganesha serves there, in the root with the programs for these tests.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Signal, chdir, chroot, set_parent_process_death_signal};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use sha2::{Digest, Sha256};
use simple_dns::rdata::{A, CNAME, RData};
use simple_dns::{CLASS, Name, Packet, QTYPE, RCODE, ResourceRecord, TYPE};

use crate::bed::{Machine, Tree, from_environment, run};

const PAPERS_NETWORK: &str = "user,id=n0,net=10.0.0.0/24,host=10.0.0.1,dhcpstart=10.0.0.15";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Gives this thread a network and mounts of its own: each test has its own ports, and nothing of it stays.
pub fn alone() {
    // SAFETY: only namespaces are made new; no memory or descriptor is shared otherwise than before.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }
        .expect("these tests need root: run them with `./x test`");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).unwrap();
    run(Command::new("ip").args(["link", "set", "lo", "up"]));
    name_server();
}

/// What QEMU's own name server asks: everything ends in `.lab.example` is `server.lab.example`, which is 10.0.2.2; there
/// is nothing else.
fn name_server() {
    let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
    let resolv_conf = tempfile::NamedTempFile::new().unwrap();
    fs::write(resolv_conf.path(), "nameserver 127.0.0.1\n").unwrap();
    mount_bind(resolv_conf.path(), "/etc/resolv.conf").unwrap();
    std::thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((size, from)) = socket.recv_from(&mut question) {
            if let Some(answer) = answer(&question[..size]) {
                let _ = socket.send_to(&answer, from);
            }
        }
    });
}

fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let mut packet = Packet::parse(question).ok()?.into_reply();
    let asked = packet.questions.first()?.clone();
    if !asked.qname.to_string().ends_with(".lab.example") {
        *packet.rcode_mut() = RCODE::NameError;
    } else if asked.qtype == QTYPE::TYPE(TYPE::A) {
        let target = Name::new("server.lab.example").ok()?;
        let alias = RData::CNAME(CNAME(target.clone()));
        let address = RData::A(A::from(Ipv4Addr::new(10, 0, 2, 2)));
        for (name, data) in [(asked.qname, alias), (target, address)] {
            packet
                .answers
                .push(ResourceRecord::new(name, CLASS::IN, 60, data));
        }
    }
    packet.build_bytes_vec().ok()
}

/// The root with the programs, as a tree that this thread may mount on.
fn programs() -> PathBuf {
    from_environment("ESTIVE_LOADERS_ROOT")
}

/// A program of that root, in that root; `/mnt` there is `shared`.
fn program(shared: &Path, name: &str) -> Command {
    let root = programs();
    let mut command = Command::new(name);
    let shared = shared.to_owned();
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    // SAFETY: only system calls are made between fork and exec; the paths were allocated before.
    unsafe {
        command.pre_exec(move || {
            // The test's end is its end too.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            unshare_unsafe(UnshareFlags::NEWNS)?;
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private)?;
            mount_bind(&shared, root.join("mnt"))?;
            mount(
                "tmpfs",
                root.join("run"),
                "tmpfs",
                MountFlags::empty(),
                None,
            )?;
            mount("proc", root.join("proc"), "proc", MountFlags::empty(), None)?;
            for place in ["run/rpcbind", "run/ganesha"] {
                rustix::fs::mkdir(root.join(place), rustix::fs::Mode::RWXU)?;
            }
            chroot(&root)?;
            chdir("/")?;
            Ok(())
        });
    }
    command
}

/// An NFS server for one test. `/mnt` of what it exports is its directory.
struct Server {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Server {
    /// With these exports: the directory in its own, the path that clients mount, and RO, RW or None.
    fn start(exports: &[(&str, &str, &str)]) -> Server {
        alone();
        let directory = tempfile::tempdir().unwrap();
        // What is served must be on a file system with stable handles, whatever the machine's own is.
        mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            MountFlags::empty(),
            None,
        )
        .unwrap();
        Server {
            directory,
            children: Vec::new(),
        }
        .serving(exports)
    }

    fn serving(mut self, exports: &[(&str, &str, &str)]) -> Server {
        let mut config = String::from(
            "NFS_CORE_PARAM { Protocols = 3, 4; NFS_Port = 2049; MNT_Port = 20048; Enable_NLM = false;\n\
             Enable_RQUOTA = false; mount_path_pseudo = true; }\n\
             NFSV4 { Graceless = true; Only_Numeric_Owners = true; Allow_Numeric_Owners = true;\n\
             RecoveryBackend = fs; RecoveryRoot = /run/ganesha; Lease_Lifetime = 10; }\n",
        );
        for (number, (path, pseudo, access)) in exports.iter().enumerate() {
            fs::create_dir_all(self.path(path)).unwrap();
            config += &format!(
                "EXPORT {{ Export_Id = {}; Path = /mnt/{path}; Pseudo = {pseudo}; Access_Type = {access}; SecType = sys;\n\
                 Squash = No_Root_Squash; Protocols = 3, 4; Transports = TCP; FSAL {{ Name = VFS; }} }}\n",
                number + 1
            );
        }
        fs::write(self.path("ganesha.conf"), config).unwrap();
        let log = self.path("ganesha.log");
        let mut start = |name: &str, arguments: &str| {
            let mut command = program(self.directory.path(), name);
            let child = command
                .args(arguments.split(' '))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            self.children.push(child);
        };
        start("rpcbind", "-f -s");
        wait_for("rpcbind", || {
            std::net::TcpStream::connect("127.0.0.1:111").is_ok()
        });
        start(
            "ganesha.nfsd",
            "-F -f /mnt/ganesha.conf -L /mnt/ganesha.log -p /run/ganesha/pid -N NIV_EVENT",
        );
        wait_for("Ganesha", || {
            fs::read_to_string(&log).is_ok_and(|text| text.contains("NFS SERVER INITIALIZED"))
        });
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("ganesha.log")).unwrap_or_default();
            eprintln!("--- ganesha\n{log}");
        }
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = rustix::mount::unmount(self.directory.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / POLL.as_millis() {
        if done() {
            return;
        }
        std::thread::sleep(POLL);
    }
    panic!("no {what} in {PATIENCE:?}");
}

/// Fills a directory as a tree is filled, with the probe in it.
fn fill(directory: &Path, name: &str) {
    let tree = Tree::with_probe(name);
    run(Command::new("cp")
        .arg("-a")
        .arg(format!("{}/.", tree.path().display()))
        .arg(directory));
}

/// A machine on a network of QEMU's with these words.
pub fn on_network(root: &str, netdev: &str) -> Machine {
    let mut machine = Machine::new(root);
    machine.arguments = [
        "-netdev",
        netdev,
        "-device",
        "virtio-net-pci,romfile=,netdev=n0",
    ]
    .map(str::to_owned)
    .to_vec();
    machine
}

/// The two exports of the paper's examples.
fn papers_server() -> Server {
    let exports = [
        ("root", "/", "RO"),
        ("clone01", "/var/state/systems/clone01", "RW"),
    ];
    alone();
    let directory = tempfile::tempdir().unwrap();
    mount(
        "tmpfs",
        directory.path(),
        "tmpfs",
        MountFlags::empty(),
        None,
    )
    .unwrap();
    let server = Server {
        directory,
        children: Vec::new(),
    };
    fs::create_dir_all(server.path("root/var/state/systems/clone01")).unwrap();
    fill(&server.path("root"), "root");
    fs::create_dir_all(server.path("clone01/etc")).unwrap();
    fs::write(server.path("clone01/etc/layer-clone01"), "clone01").unwrap();
    server.serving(&exports)
}

/// An archive with one file, in a directory of archives.
fn add_package(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    let package = tempfile::tempdir().unwrap();
    fs::create_dir(package.path().join("etc")).unwrap();
    fs::write(package.path().join("etc/layer-package"), "package").unwrap();
    run(Command::new("tar")
        .args(["--owner=0", "--group=0", "-czf"])
        .arg(directory.join("package.tar.gz"))
        .arg("-C")
        .arg(package.path())
        .arg("etc"));
}

#[test]
fn the_papers_stateless_clone_boots_from_nfs_as_written() {
    let server = papers_server();
    add_package(&server.path("clone01/var/tmpfs-overlay"));
    let machine = on_network(
        "nfs:10.0.0.1:/:ro;nfs:10.0.0.1:/var/state/systems/clone01:ro;tmpfs:rw",
        PAPERS_NETWORK,
    )
    .word("unpack=/var/tmpfs-overlay")
    .word("probe.write=/etc/new,/etc/layer-root")
    .word("probe.read=/run/estive/net,/etc/resolv.conf,/proc/mounts");
    let facts = machine.boot().facts();
    assert_eq!(facts.layers(), ["clone01", "package", "root"]);
    facts.are(&[("write /etc/new", "written"), ("root is", "overlay")]);
    // The lease is kept for the booted system, and its name server where the root has none.
    let net = facts.of("/run/estive/net");
    for part in [
        "DEVICE=eth0",
        "PROTO=dhcp",
        "IPV4ADDR=10.0.0.15",
        "DHCPSERVER=10.0.0.1",
    ] {
        assert!(net.contains(part), "{net}");
    }
    assert!(facts.of("/etc/resolv.conf").contains("nameserver 10.0.0.3"));
    assert!(facts.of("/proc/mounts").contains("vers=4.2"));
    // Nothing reached the server.
    assert!(!server.path("clone01/.estive").exists());
    assert!(!server.path("clone01/etc/new").exists());
}

/// Makes a directory bootable as the root of `mkfs.ext4`: the program and its libraries, from the root with programs.
fn give_mkfs(directory: &Path) {
    let root = programs();
    let listed = run(program(directory, "ldd").arg("/usr/sbin/mkfs.ext4"));
    let libraries = listed
        .split_ascii_whitespace()
        .filter(|word| word.starts_with('/'));
    for path in libraries.chain(["/usr/sbin/mkfs.ext4", "/etc/mke2fs.conf"]) {
        let from = fs::canonicalize(root.join(path.trim_start_matches('/'))).unwrap();
        let to = directory.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(from, to).unwrap();
    }
}

#[test]
fn the_papers_stateful_clone_remembers_and_is_booted_by_one_machine_at_a_time() {
    let server = papers_server();
    give_mkfs(&server.path("root"));
    let line = "nfs:10.0.0.1:/:ro;nfs:10.0.0.1:/var/state/systems/clone01:rw";
    let machine = |words: &[&str]| {
        let mut machine = on_network(line, PAPERS_NETWORK);
        machine
            .words
            .extend(words.iter().map(|word| (*word).to_owned()));
        machine
    };
    let first = machine(&["probe.write=/etc/kept", "probe.list=/"]);
    let facts = first.boot().facts();
    assert_eq!(facts.layers(), ["clone01", "root"]);
    facts.are(&[("write /etc/kept", "written")]);
    assert!(!facts.of("/").contains(".estive"));
    let image = fs::metadata(server.path("clone01/.estive/upper.img")).unwrap();
    assert_eq!(image.len(), 8 << 30);
    assert!(!server.path("clone01/etc/kept").exists());
    // It is remembered; and while this machine has it, no other gets it.
    let second = machine(&["probe.read=/etc/kept", "probe.hold=1"]);
    let mut second = second.boot();
    second.wait_until("the hold", |guest| {
        guest.text("console").contains("fact held")
    });
    let mut other = machine(&["estive.wait=1"]);
    other.arguments[3] += ",mac=52:54:00:00:00:99";
    let error = other.boot().failure();
    assert!(
        error.contains("in use by the machine with 52:54:00:12:34:56"),
        "{error}"
    );
    // Nor by the older version, which knows of no lock at the server.
    let mut older = on_network(&format!("{line}:vers=3"), PAPERS_NETWORK);
    older.arguments[3] += ",mac=52:54:00:00:00:99";
    let error = older.boot().failure();
    assert!(
        error.contains("belongs to the machine with 52:54:00:12:34:56, by NFS 4"),
        "{error}"
    );
    assert!(second.text("console").contains("fact /etc/kept=written"));
}

#[test]
fn a_top_directory_that_its_server_only_lets_read_makes_the_root_read_only() {
    let server = Server::start(&[("srv", "/srv", "RO")]);
    fs::create_dir_all(server.path("srv/etc")).unwrap();
    fs::create_dir_all(server.path("srv/.estive")).unwrap();
    fs::write(server.path("srv/etc/layer-srv"), "srv").unwrap();
    let machine = on_network("/dev/vda;nfs:10.0.2.2:/srv", "user,id=n0").word("probe.write=/new");
    let image = machine.path("a");
    Tree::with_probe("a").erofs(&image, &[]);
    let facts = machine.disk(&image, "virtio-blk-pci").boot().facts();
    assert_eq!(facts.layers(), ["a", "srv"]);
    facts.are(&[("write /new", "ReadOnlyFilesystem"), ("root is", "overlay")]);
    facts.said("lets nothing be written to nfs:10.0.2.2:/srv");
}

#[test]
fn version_3_a_name_and_a_static_address() {
    let exports = [("srv", "/srv", "RW")];
    let server = Server::start(&exports);
    fill(&server.path("srv"), "srv");
    let machine = on_network(
        "nfs:files:/srv:ro:vers=3:rsize=65536:nocto;tmpfs",
        "user,id=n0",
    )
    .word("ip=10.0.2.77::10.0.2.2:255.255.255.0:node7:eth0:off:10.0.2.3:domain=lab.example")
    .word("probe.read=/run/estive/net,/proc/mounts,/proc/sys/kernel/hostname");
    let facts = machine.boot().facts();
    assert_eq!(facts.layers(), ["srv"]);
    facts.are(&[("/proc/sys/kernel/hostname", "node7")]);
    assert!(facts.of("/proc/mounts").contains("vers=3,rsize=65536"));
    assert!(
        facts
            .of("/run/estive/net")
            .contains("PROTO=static|IPV4ADDR=10.0.2.77")
    );
}

#[test]
fn what_is_wrong_with_a_server_is_said() {
    let exports = [("srv", "/srv", "RW"), ("no", "/no", "None")];
    let _server = Server::start(&exports);
    let failure = |line: &str| {
        let machine = on_network(line, "user,id=n0").word("estive.wait=2");
        machine.boot().failure()
    };
    let error = failure("nfs:10.0.2.2:/none:vers=4.2;tmpfs");
    assert!(error.contains("has no export /none"), "{error}");
    let error = failure("nfs:10.0.2.2:/no:vers=3;tmpfs");
    assert!(
        error.contains("refuses /no to this machine, 10.0.2.15"),
        "{error}"
    );
    let error = failure("nfs:10.0.2.2:/srv:port=2050;tmpfs");
    assert!(error.contains("does not answer on port 2050"), "{error}");
    let error = failure("nfs:nowhere.invalid:/srv;tmpfs");
    assert!(
        error.contains("knows no address of nowhere.invalid"),
        "{error}"
    );
}

/// An image of a live CD with these trees as SquashFS files, made by programs of the root.
fn live_cd(directory: &Path, layers: &[(&str, Tree)]) -> PathBuf {
    let cd = directory.join("cd");
    for (path, tree) in layers {
        let place = directory.join("tree");
        let _ = fs::remove_dir_all(&place);
        run(Command::new("cp").arg("-a").arg(tree.path()).arg(&place));
        fs::create_dir_all(cd.join(path).parent().unwrap()).unwrap();
        squashfs(directory, "/mnt/tree", &format!("/mnt/cd/{path}"));
    }
    let arguments = "-as mkisofs -quiet -R -J -V LIVE -o /mnt/live.iso /mnt/cd";
    run(program(directory, "xorriso").args(arguments.split(' ')));
    directory.join("live.iso")
}

fn squashfs(directory: &Path, tree: &str, image: &str) {
    let arguments = ["-quiet", "-no-progress", "-all-root", "-processors", "1"];
    run(program(directory, "mksquashfs")
        .args([tree, image])
        .args(arguments));
}

#[test]
fn images_of_a_directory_on_nfs_are_layers_and_so_is_a_live_cd_there() {
    let server = Server::start(&[("images", "/images", "RO")]);
    let directory = server.path("images");
    Tree::with_probe("a").erofs(&directory.join("10-a.erofs"), &[]);
    Tree::new("b").ext4(&directory.join("20-b.ext4"), 16, &[]);
    let tree = Tree::new("c");
    run(Command::new("cp")
        .arg("-a")
        .arg(tree.path())
        .arg(server.path("tree")));
    squashfs(
        server.directory.path(),
        "/mnt/tree",
        "/mnt/images/30-c.squashfs",
    );
    let facts = on_network("loop+nfs:10.0.2.2:/images:ro;tmpfs", "user,id=n0")
        .boot()
        .facts();
    assert_eq!(facts.layers(), ["a", "b", "c"]);

    let layers = [
        ("live/filesystem.squashfs", Tree::with_probe("live")),
        ("live/more.squashfs", Tree::new("more")),
    ];
    let image = live_cd(&server.path("images"), &layers);
    let facts = on_network("livecd+nfs:/live.iso:10.0.2.2:/images;tmpfs", "user,id=n0")
        .boot()
        .facts();
    assert_eq!(facts.layers(), ["live", "more"]);

    // The same in a drive, found by what is on it.
    let mut machine = Machine::new("livecd:layers=live/filesystem.squashfs;tmpfs");
    machine = machine.disk(&image, "virtio-blk-pci");
    machine.disks[0].read_only = true;
    assert_eq!(machine.boot().facts().layers(), ["live"]);
}

/// A web server on this thread's loopback: `/x.iso` leads to `/live.iso`, which is a file.
pub fn web_server(image: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let image = fs::read(image).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.extend(byte);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let answer = match request.split(' ').nth(1) {
                Some("/live.iso") => {
                    let head =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", image.len());
                    [head.as_bytes(), &image].concat()
                }
                Some("/x.iso") => b"HTTP/1.1 302 Found\r\nLocation: /live.iso\r\n\r\n".to_vec(),
                _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
            };
            // A guest that has seen enough closes.
            let _ = stream.write_all(&answer);
        }
    });
    port
}

#[test]
fn a_live_cd_is_fetched_into_memory_and_its_digest_checked() {
    alone();
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    Tree::with_probe("fedora").ext4(&inner, 16, &[]);
    let outer = Tree::new("outer").file("LiveOS/rootfs.img", fs::read(&inner).unwrap());
    let image = live_cd(directory.path(), &[("LiveOS/squashfs.img", outer)]);
    let digest: String = Sha256::digest(fs::read(&image).unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let port = web_server(&image);
    let machine = |path: &str, digest: &str| {
        let url = format!("http://10.0.2.2:{port}/{path}");
        on_network(
            &format!("livecd+url:{url}:sha256={digest};tmpfs"),
            "user,id=n0",
        )
    };
    let facts = machine("x.iso", &digest).boot().facts();
    assert_eq!(facts.layers(), ["fedora"]);
    let error = machine("live.iso", &"0".repeat(64)).boot().failure();
    assert!(
        error.contains("is not what was asked for") && error.contains(&digest),
        "{error}"
    );
}
