//! The model by hand, and held against migrations that were measured.

use super::*;

fn load(memory_bytes: u64, dirtied_bytes_per_s: u64, hot_bytes: u64) -> Load {
    Load {
        memory_bytes,
        dirtied_bytes_per_s,
        hot_bytes,
    }
}

#[test]
fn a_domain_that_writes_nothing_is_sent_once() {
    let transfer = pre_copy(load(1 << 30, 0, 0), 125_000_000);
    assert_eq!(transfer.bytes, 1 << 30);
    // Half of what a switch may send is left when QEMU looks.
    assert!((transfer.downtime_ms - SWITCH_MS - DOWNTIME_ALLOWED_MS / 2.0).abs() < 1e-6);
    assert_eq!((transfer.slowed_s, transfer.risk), (0.0, 0.0));
}

#[test]
fn rounds_shrink_by_the_share_that_is_written_again() {
    // Of 100 MB/s a switch may send 5 MB, of which half is left at each look: 997.5 of 1000 MB, then 99.75 of 102.25,
    // 9.975 of 12.475; 0.9975 + 2.5 MB are little enough.
    let transfer = pre_copy(load(1_000_000_000, 10_000_000, 0), 100_000_000);
    assert_eq!(
        transfer.bytes,
        997_500_000 + 99_750_000 + 9_975_000 + 3_497_500
    );
    assert!((transfer.downtime_ms - SWITCH_MS - 34.975).abs() < 1e-6);
}

#[test]
fn a_hot_part_that_can_be_sent_standing_still_is_no_hindrance() {
    let slow = pre_copy(load(1_000_000_000, 500_000_000, 0), 100_000_000);
    let hot = pre_copy(load(1_000_000_000, 500_000_000, 2_000_000), 100_000_000);
    assert_eq!((hot.risk, hot.slowed_s), (0.0, 0.0));
    assert!(hot.bytes < 1_005_000_000 && hot.duration_s < slow.duration_s / 2.0);
    assert_eq!(slow.risk, RISK_AT_MOST);
}

#[test]
fn one_that_writes_as_fast_as_it_is_sent_is_slowed_until_it_converges() {
    let fast = pre_copy(load(1_000_000_000, 200_000_000, 0), 100_000_000);
    assert!(fast.slowed_s > 1.0, "{fast:?}");
    assert!(
        fast.downtime_ms <= SWITCH_MS + DOWNTIME_ALLOWED_MS,
        "{fast:?}"
    );
    let hopeless = pre_copy(load(1_000_000_000, 1 << 40, 0), 100_000_000);
    assert!(hopeless.downtime_ms > 1000.0, "{hopeless:?}");
}

#[test]
fn the_risk_begins_where_a_domain_is_slowed_and_is_full_at_the_links_rate() {
    let risk = |dirtied| pre_copy(load(1 << 30, dirtied, 0), 100_000_000).risk;
    assert_eq!(risk(50_000_000), 0.0);
    assert!((risk(75_000_000) - RISK_AT_MOST / 2.0).abs() < 1e-9);
    assert_eq!(risk(100_000_000), RISK_AT_MOST);
    assert_eq!(risk(900_000_000), RISK_AT_MOST);
}
