//! Bridges and taps as the kernel sees them, in a network namespace of the test's own.

use estive_model::DomainName;
use estive_network::{
    Error, Sender, bridge_ensure, bridge_mac, door_ensure, sender_ensure, sender_remove,
    tap_ensure, tap_name, tap_remove, taps,
};
use std::process::{Child, Command, Stdio};

/// Runs `test` on a thread that has a network namespace of its own; `ip` started by it lives there too, and the kernel
/// removes everything when the thread ends.
fn in_own_network<F: Future<Output = ()> + Send + 'static>(test: F) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    std::thread::spawn(move || {
        // SAFETY: a new network namespace shares nothing that memory safety depends on; file descriptors stay shared.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(test);
    })
    .join()
    .unwrap();
}

const ANYBODY: Sender = Sender::Unknown { door: None };

fn domain(name: &str) -> DomainName {
    DomainName::new(name).unwrap()
}

#[test]
fn a_tap_is_made_once_and_removed_once() {
    in_own_network(async {
        let mac = bridge_mac("host1", "br0");
        bridge_ensure("br0", mac).await.unwrap();
        let tap = tap_name(&domain("clone01"));
        tap_ensure(&tap, "br0", &ANYBODY).await.unwrap();
        tap_ensure(&tap, "br0", &ANYBODY).await.unwrap();
        let found = taps().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name.as_str(), found[0].bridge.as_deref()),
            (tap.as_str(), Some("br0"))
        );
        assert!(!found[0].in_use);
        // The bridge's address must not follow its ports.
        bridge_ensure("br0", mac).await.unwrap();
        let shown = tokio::process::Command::new("ip")
            .args(["link", "show", "br0"])
            .output()
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&shown.stdout).contains(&mac.to_string()));
        tap_remove(&tap).await.unwrap();
        tap_remove(&tap).await.unwrap();
        assert!(taps().await.unwrap().is_empty());
    });
}

#[test]
fn a_bridges_wrong_address_is_corrected() {
    in_own_network(async {
        bridge_ensure("br0", bridge_mac("other", "br0"))
            .await
            .unwrap();
        let mac = bridge_mac("host1", "br0");
        bridge_ensure("br0", mac).await.unwrap();
        let shown = tokio::process::Command::new("ip")
            .args(["link", "show", "br0"])
            .output()
            .await
            .unwrap();
        assert!(String::from_utf8_lossy(&shown.stdout).contains(&mac.to_string()));
    });
}

#[test]
fn what_is_not_ours_is_left_alone() {
    in_own_network(async {
        let tap = tap_name(&domain("clone01"));
        assert!(matches!(
            tap_ensure(&tap, "br0", &ANYBODY).await,
            Err(Error::NoBridge { .. })
        ));
        assert!(taps().await.unwrap().is_empty(), "a half-made tap stayed");
        bridge_ensure("br0", bridge_mac("host1", "br0"))
            .await
            .unwrap();
        assert!(matches!(
            tap_ensure("lo", "br0", &ANYBODY).await,
            Err(Error::Taken { .. })
        ));
        assert!(matches!(tap_remove("br0").await, Err(Error::Taken { .. })));
        assert!(matches!(
            bridge_ensure("lo", bridge_mac("a", "b")).await,
            Err(Error::Taken { .. })
        ));
        assert!(matches!(
            tap_ensure("t1 up", "br0", &ANYBODY).await,
            Err(Error::Name { .. })
        ));
    });
}

#[test]
fn a_hosts_door_is_behind_its_own_port_and_made_once() {
    in_own_network(async {
        let address = "10.77.0.9".parse().unwrap();
        let missing = door_ensure("br0", address).await;
        assert!(
            matches!(missing, Err(Error::NoBridge { .. })),
            "{missing:?}"
        );
        bridge_ensure("br0", bridge_mac("host1", "br0"))
            .await
            .unwrap();
        // The clones of a herd ask at once.
        let (first, second) =
            tokio::join!(door_ensure("br0", address), door_ensure("br0", address));
        first.unwrap();
        second.unwrap();
        door_ensure("br0", address).await.unwrap();
        let shown = async |program: &str, arguments: &[&str]| {
            let shown = tokio::process::Command::new(program)
                .args(arguments)
                .output();
            String::from_utf8_lossy(&shown.await.unwrap().stdout).into_owned()
        };
        let addresses = shown("ip", &["-4", "-o", "address", "show"]).await;
        assert_eq!(addresses.matches("10.77.0.9/32").count(), 1, "{addresses}");
        // Fixed: what another host's door says on the wire does not move it.
        let table = shown("bridge", &["fdb", "show", "br", "br0"]).await;
        assert!(
            table.contains("02:e5:71:fe:d0:0a dev estive-door-br sticky master br0 static"),
            "{table}"
        );
        // The host's door is another by now.
        door_ensure("br0", "10.77.0.8".parse().unwrap())
            .await
            .unwrap();
        let addresses = shown("ip", &["-4", "-o", "address", "show"]).await;
        assert!(
            addresses.contains("10.77.0.8/32") && !addresses.contains("10.77.0.9"),
            "{addresses}"
        );
    });
}

/// A machine on a wire: a process with a network namespace of its own.
struct Machine(Child);

impl Machine {
    /// With the other end of `port`, which it knows as `eth0`.
    fn on(port: &str) -> Machine {
        let nothing = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut machine = Machine(nothing.unwrap());
        // It says something when it has its namespace.
        let mut line = [0];
        std::io::Read::read_exact(machine.0.stdout.as_mut().unwrap(), &mut line).unwrap();
        let pid = machine.0.id();
        run(&format!(
            "ip link add {port} type veth peer name eth0 netns {pid}"
        ));
        machine
    }

    fn runs(&self, command: &str) -> bool {
        let pid = self.0.id();
        let entered = format!("nsenter --target {pid} --net {command}");
        succeeds(&entered)
    }

    fn run(&self, command: &str) {
        assert!(self.runs(command), "{command}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn succeeds(command: &str) -> bool {
    let mut words = command.split(' ');
    let mut program = Command::new(words.next().unwrap());
    let program = program.args(words).stdout(Stdio::null());
    program.status().unwrap().success()
}

fn run(command: &str) {
    assert!(succeeds(command), "{command}");
}

fn shown(program: &str, arguments: &str) -> String {
    let shown = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .unwrap();
    String::from_utf8_lossy(&shown.stdout).into_owned()
}

#[test]
fn who_takes_anothers_address_or_mac_gets_nothing_and_is_not_believed() {
    in_own_network(async {
        bridge_ensure("br0", bridge_mac("host1", "br0"))
            .await
            .unwrap();
        run("ip address add 10.77.0.1/24 dev br0");
        door_ensure("br0", "10.77.0.9".parse().unwrap())
            .await
            .unwrap();
        let own = "02:77:00:00:00:65";
        let sender = Sender::Known {
            mac: own.parse().unwrap(),
            address: "10.77.0.101".parse().unwrap(),
        };
        let clone = Machine::on("port");
        run("ip link set port master br0 up");
        clone.run(&format!("ip link set eth0 address {own} up"));
        // Its own, another clone's, and what may not be on this wire at all.
        clone.run("ip address add 10.77.0.101/24 dev eth0");
        clone.run("ip address add 10.77.0.102/24 dev eth0");
        let asks_as = |address: &str| {
            // Who the host is, it asks for by the address that it has taken.
            clone.run("ip neighbour flush dev eth0");
            run("ip neighbour flush dev br0");
            let ping = format!("ping -q -c 1 -W 2 -I {address} 10.77.0.9");
            let answered = clone.runs(&ping);
            let known = shown("ip", &format!("neighbour show {address} dev br0"));
            assert_eq!(answered, known.contains("lladdr"), "{address}: {known}");
            answered
        };
        // The control.
        assert!(asks_as("10.77.0.102"));
        sender_ensure("port", &sender).await.unwrap();
        sender_ensure("port", &sender).await.unwrap();
        assert!(asks_as("10.77.0.101"));
        assert!(!asks_as("10.77.0.102"));
        clone.run("ip link set eth0 address 02:77:00:00:00:66");
        assert!(!asks_as("10.77.0.101"));
        clone.run(&format!("ip link set eth0 address {own}"));
        assert!(asks_as("10.77.0.101"));
        // One whose address nobody knows comes to no door, and everywhere else.
        let stranger = Sender::Unknown {
            door: Some("10.77.0.9".parse().unwrap()),
        };
        sender_ensure("port", &stranger).await.unwrap();
        clone.run("ping -q -c 1 -W 9 10.77.0.1");
        assert!(!clone.runs("ping -q -c 1 -W 2 10.77.0.9"));
        sender_remove("port").await.unwrap();
        sender_remove("port").await.unwrap();
        clone.run("ping -q -c 1 -W 9 10.77.0.9");
        assert_eq!(shown("nft", "list ruleset"), "");
    });
}

#[test]
fn what_a_tap_is_held_to_comes_and_goes_with_it() {
    in_own_network(async {
        bridge_ensure("br0", bridge_mac("host1", "br0"))
            .await
            .unwrap();
        let tap = tap_name(&domain("clone01"));
        let sender = |address: &str| Sender::Known {
            mac: "02:77:00:00:00:65".parse().unwrap(),
            address: address.parse().unwrap(),
        };
        for address in ["10.77.0.101", "10.77.0.102"] {
            tap_ensure(&tap, "br0", &sender(address)).await.unwrap();
            let rules = shown("nft", "list ruleset");
            let own = format!("ip saddr {address} accept");
            assert_eq!(rules.matches("saddr 10.77").count(), 1, "{rules}");
            assert!(rules.contains(&own), "{rules}");
        }
        tap_remove(&tap).await.unwrap();
        assert_eq!(shown("nft", "list ruleset"), "");
        // The interface went another way.
        tap_ensure(&tap, "br0", &sender("10.77.0.101"))
            .await
            .unwrap();
        run(&format!("ip link delete dev {tap}"));
        tap_remove(&tap).await.unwrap();
        assert_eq!(shown("nft", "list ruleset"), "");
    });
}
