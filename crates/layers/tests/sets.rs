//! What each set that ships makes of a clone, file by file.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo test -p estive-layers --test sets`, and read the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use estive_archive::{Kind, Limits, Manifest, Reader};
use estive_layers::{
    DeploymentSecret, OwnSets, Render, RenderHere, RenderRequest, TemplateSet, herd,
};
use sha2::{Digest as _, Sha256};

/// Each set with a herd that gives every variable it reads. Its clone01 is rendered; there is a clone02.
const HERDS: [(&str, &str); 8] = [
    (
        "base-debian",
        "
gateway: 10.77.0.1
nameservers: [10.77.0.1, 10.77.0.3]
ssh_authorized_keys: ssh-ed25519 AAAA me
kernel_modules: [nfs]
services_on: [systemd-networkd, fstrim.timer]
services_off: [cron]
os_root_device: 10.0.0.1:/
os_root_fs_type: nfs
os_root_fs_options: nfsvers=3
os_home_device: 10.0.0.1:/home
os_home_fs_type: nfs
os_home_fs_options: nfsvers=3
mounts:
  - {device: \"10.0.0.1:/my data\", at: /srv/my data, type: nfs, options: ro}
  - {device: LABEL=scratch, at: /scratch}
",
    ),
    (
        "base-openrc",
        "
gateway: 10.77.0.1
nameservers: [10.77.0.1]
ssh_authorized_keys: ssh-ed25519 AAAA me
kernel_modules: [nfs]
services_on: [nginx]
services_off: [cron]
os_home_device: 10.0.0.1:/home
mounts: [{device: \"10.0.0.1:/srv\", at: /srv, type: nfs, options: ro}]
",
    ),
    ("dummy", "dummy_words: it's me\n"),
    (
        "dump",
        "
dump_to: /dev/disk/by-id/virtio-dump
dump_at_boot: true
dump_exclude: [/var/cache, /usr/src]
",
    ),
    (
        "mpi",
        "
mpi_group: workers
mpi_parameters: {pml: ob1}
cpus: 2
groups: {idle: {hosts: {clone03: }}, workers: {hosts: {\"clone[04-05]\": }}}
",
    ),
    (
        "postgresql",
        "
postgresql_password: it's \\ a \"secret\"
postgresql_database: books
postgresql_user: reader
postgresql_allowed: [10.0.0.0/8]
postgresql_settings: {shared_buffers: 32MB, log_line_prefix: \"it's %m\"}
",
    ),
    ("register", "register_dir: /srv/clones\n"),
    ("web", "greeting: <b>&\n"),
];

fn layer(set: &str, text: &str) -> Vec<u8> {
    let text = format!("{text}sets: [{set}]\nhosts: {{\"clone[01-02]\": }}\n");
    let herd = herd::parse("herd.yaml", &text, "demo").unwrap_or_else(|error| panic!("{error}"));
    let secret = DeploymentSecret::new([7; 32]);
    let request = RenderRequest::new(&herd, &OwnSets::new(), &secret);
    let rendered = request.and_then(|request| RenderHere.render(&request));
    let rendered = rendered.unwrap_or_else(|error| panic!("{set}: {error}"));
    rendered.layer_of("clone01").unwrap().bytes
}

/// A layer as text: mode, owner and path of each member, and what files hold.
fn listed(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes, Limits::default());
    let manifest = Manifest::read_from(&mut reader).unwrap();
    let implied: BTreeSet<&str> = manifest.implied.iter().map(String::as_str).collect();
    // By path: which of them stand in the part that all clones share is another matter.
    let mut texts = BTreeMap::new();
    for member in reader {
        let member = member.unwrap();
        let xattrs = manifest.xattrs.get(member.path);
        let is_implied = implied.contains(member.path);
        if matches!(member.kind, Kind::Directory) && is_implied && xattrs.is_none() {
            continue;
        }
        let owner = match member.kind {
            Kind::CharacterDevice { major: 0, minor: 0 } => "hidden".to_owned(),
            _ if is_implied => "as the root".to_owned(),
            _ => format!("{:04o} {}:{}", member.mode, member.uid, member.gid),
        };
        let what = match member.kind {
            Kind::Symlink(target) => format!(" -> {target}"),
            Kind::Directory => "/".to_owned(),
            _ => String::new(),
        };
        let mut text = format!("{owner:<12} {}{what}", member.path);
        for (name, value) in xattrs.into_iter().flatten() {
            write!(text, "  {name}={}", String::from_utf8_lossy(&value.0)).unwrap();
        }
        text.push('\n');
        if let Kind::File(bytes) = member.kind {
            let inside = String::from_utf8_lossy(bytes);
            // Word for word too, and yet no private key stands in the repository.
            if inside.contains("PRIVATE KEY") {
                writeln!(text, "    | (private, sha256 {:x})", Sha256::digest(bytes)).unwrap();
            } else {
                for line in inside.lines() {
                    writeln!(text, "    | {line}").unwrap();
                }
            }
        }
        texts.insert(member.path, text);
    }
    texts.into_values().collect()
}

#[test]
fn every_shipped_set_word_for_word() {
    let known: Vec<&str> = HERDS.iter().map(|(set, _)| *set).collect();
    assert_eq!(known, TemplateSet::shipped().collect::<Vec<_>>());
    for (set, text) in HERDS {
        insta::assert_snapshot!(set, listed(&layer(set, text)));
    }
}

/// With nothing given but what a set requires.
#[test]
fn every_shipped_set_word_for_word_by_its_defaults() {
    for (set, _) in HERDS {
        let name = format!("{set}-by-default");
        insta::assert_snapshot!(name, listed(&layer(set, "")));
    }
}
