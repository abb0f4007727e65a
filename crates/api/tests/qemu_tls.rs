//! QEMU (by GnuTLS) takes the directories that the authority writes, on both ends and with peers verified.

use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use estive_api::authority::Authority;
use estive_api::{Credentials, Role};

const DAY: Duration = Duration::from_secs(86_400);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A qemu-nbd that serves one disk by TLS; killed when dropped.
struct Nbd {
    child: Child,
    port: u16,
}

impl Nbd {
    fn start(credentials: &Path, disk: &Path) -> Self {
        // A free port may be taken by another before qemu-nbd binds it: then qemu-nbd ends, and the next is tried.
        for _ in 0..10 {
            let port = TcpListener::bind((LOOPBACK, 0))
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            let child = Command::new("qemu-nbd")
                .arg("--object")
                .arg(format!(
                    "tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir={}",
                    credentials.display()
                ))
                .args([
                    "--tls-creds=tls",
                    "--bind=127.0.0.1",
                    "--persistent",
                    "--shared=4",
                    "--format=raw",
                ])
                .args([
                    "--read-only",
                    "--export-name=disk",
                    &format!("--port={port}"),
                ])
                .arg(disk)
                .stdin(Stdio::null())
                .spawn()
                .expect("qemu-nbd is not installed");
            let mut nbd = Self { child, port };
            for _ in 0..600 {
                if TcpStream::connect((LOOPBACK, port)).is_ok() {
                    return nbd;
                }
                if nbd.child.try_wait().unwrap().is_some() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("qemu-nbd does not start with these credentials");
    }

    /// Runs a QEMU tool on the exported disk; without credentials, in the clear.
    fn run(&self, tool: &[&str], credentials: Option<&Path>) -> Output {
        let mut command = Command::new(tool[0]);
        command.args(&tool[1..]);
        let mut image = format!("driver=nbd,host=127.0.0.1,port={},export=disk", self.port);
        if let Some(directory) = credentials {
            command.arg("--object").arg(format!(
                "tls-creds-x509,id=tls,endpoint=client,verify-peer=yes,dir={}",
                directory.display()
            ));
            image.push_str(",tls-creds=tls");
        }
        command
            .args(["--image-opts", &image])
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn issue(authority: &Authority, role: Role, directory: PathBuf, address: IpAddr) -> PathBuf {
    authority
        .issue(role, "x", &[address], DAY)
        .unwrap()
        .write_to(&directory)
        .unwrap();
    directory
}

#[test]
fn qemu_serves_and_connects_with_issued_credentials() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(home.path().join("authority")).unwrap();
    let disk = home.path().join("disk");
    std::fs::write(&disk, vec![0x5a; 1 << 20]).unwrap();
    let server = issue(
        &authority,
        Role::Storage,
        home.path().join("server"),
        LOOPBACK,
    );
    let client = issue(
        &authority,
        Role::Agent,
        home.path().join("client"),
        LOOPBACK,
    );
    Credentials::load(&server).unwrap();
    let nbd = Nbd::start(&server, &disk);

    let info = nbd.run(&["qemu-img", "info", "--output=json"], Some(&client));
    assert!(
        info.status.success(),
        "{}",
        String::from_utf8_lossy(&info.stderr)
    );
    assert!(String::from_utf8_lossy(&info.stdout).contains("\"virtual-size\": 1048576"));
    let read = nbd.run(&["qemu-io", "-r", "-c", "read -P 0x5a 0 1M"], Some(&client));
    assert!(
        read.status.success(),
        "{}",
        String::from_utf8_lossy(&read.stderr)
    );

    let plain = nbd.run(&["qemu-img", "info"], None);
    assert!(!plain.status.success(), "served in the clear");
    let other = Authority::open_or_create(home.path().join("other-authority")).unwrap();
    let stranger = issue(&other, Role::Agent, home.path().join("stranger"), LOOPBACK);
    std::fs::copy(client.join("ca-cert.pem"), stranger.join("ca-cert.pem")).unwrap();
    assert!(
        !nbd.run(&["qemu-img", "info"], Some(&stranger))
            .status
            .success(),
        "served a stranger"
    );
    drop(nbd);

    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 12));
    let displaced = issue(
        &authority,
        Role::Storage,
        home.path().join("displaced"),
        elsewhere,
    );
    let nbd = Nbd::start(&displaced, &disk);
    let info = nbd.run(&["qemu-img", "info"], Some(&client));
    assert!(
        !info.status.success(),
        "a server was taken at an address that its certificate does not name"
    );
}
