//! How large a world may be that comes from outside.

/// Bytes of a text.
pub const TEXT_BYTES: usize = 256 << 20;
/// Bytes of a line: a domain with some thousand windows.
pub const LINE_BYTES: usize = 1 << 20;
/// Bytes of a name or of a word.
pub const NAME_BYTES: usize = 255;
/// Keys of a line.
pub const KEYS: usize = 128;
/// The largest amount of anything: a million of it still add up in 64 bits.
pub const AMOUNT: u64 = 10_000_000_000_000;
/// Sites: what lies between each two is held in tables.
pub const SITES: usize = 1_000;
/// Links between sites.
pub const LINKS: usize = 100_000;
/// Hosts.
pub const HOSTS: usize = 200_000;
/// Domains.
pub const DOMAINS: usize = 1_000_000;
/// Users, deployments or volumes, each.
pub const OTHERS: usize = 1_000_000;
/// Pairs that talk.
pub const TALKS: usize = 10_000_000;
/// Rules between domains and hosts, and moves under way, each.
pub const RELATIONS: usize = 100_000;
/// Elements of one list.
pub const LIST: usize = 100_000;
/// Elements of all lists of a file.
pub const LISTED: usize = 20_000_000;
