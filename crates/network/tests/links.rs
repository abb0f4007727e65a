//! Bridges and taps as the kernel sees them, in a network namespace of the test's own.

use estive_model::DomainName;
use estive_network::{
    Error, bridge_ensure, bridge_mac, door_ensure, tap_ensure, tap_name, tap_remove, taps,
};

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

fn domain(name: &str) -> DomainName {
    DomainName::new(name).unwrap()
}

#[test]
fn a_tap_is_made_once_and_removed_once() {
    in_own_network(async {
        let mac = bridge_mac("host1", "br0");
        bridge_ensure("br0", mac).await.unwrap();
        let tap = tap_name(&domain("clone01"));
        tap_ensure(&tap, "br0").await.unwrap();
        tap_ensure(&tap, "br0").await.unwrap();
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
            tap_ensure(&tap, "br0").await,
            Err(Error::NoBridge { .. })
        ));
        assert!(taps().await.unwrap().is_empty(), "a half-made tap stayed");
        bridge_ensure("br0", bridge_mac("host1", "br0"))
            .await
            .unwrap();
        assert!(matches!(
            tap_ensure("lo", "br0").await,
            Err(Error::Taken { .. })
        ));
        assert!(matches!(tap_remove("br0").await, Err(Error::Taken { .. })));
        assert!(matches!(
            bridge_ensure("lo", bridge_mac("a", "b")).await,
            Err(Error::Taken { .. })
        ));
        assert!(matches!(
            tap_ensure("t1 up", "br0").await,
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
    });
}
