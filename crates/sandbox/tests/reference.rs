//! Scripts in a whole Debian root, as a directory and as the sealed image that clones share.
//!
//! `./x test` sets `ESTIVE_REFERENCE_ROOT` and `ESTIVE_REFERENCE`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use estive_rig::from_environment;
use estive_sandbox::{InputNode, Limits, OutputNode, ScriptRequest, Worker};

const LOGGER: &str = "#!/bin/bash
set -eu
for logger in /usr/sbin/rsyslogd /usr/lib/systemd/systemd-journald; do
  [ -x $logger ] && break
done
mkdir -p etc/service/enabled
ln -s $logger etc/service/enabled/logger
perl -e 'print qq($ENV{LANG} @{[scalar(@x = </usr/bin/*>) > 100]}\\n)' > etc/looked
cat /etc/shadow > etc/shadow-copy || echo refused > etc/shadow-copy
test ! -e /proc/1 && test ! -e /sys/kernel && test ! -e /run/systemd
";

#[test]
fn a_script_looks_at_a_whole_system_and_chooses() {
    let program = ".scripts/10-logger".to_owned();
    let bytes = LOGGER.as_bytes().to_vec();
    let file = InputNode::File {
        executable: true,
        bytes,
    };
    let worker = Worker::of(env!("CARGO_BIN_EXE_estive-sandbox"));
    let run = |root: PathBuf| {
        let request = ScriptRequest {
            script: "sets/test/.scripts/10-logger for clone01".to_owned(),
            root,
            program: program.clone(),
            set: Arc::new(BTreeMap::from([(program.clone(), file.clone())])),
            variables: b"{}".to_vec(),
            modes_given: Arc::new(BTreeSet::new()),
            limits: Limits::default(),
        };
        worker.run_script(&request).unwrap()
    };
    let output = run(from_environment("ESTIVE_REFERENCE_ROOT"));
    assert_eq!(
        output.nodes["etc/service/enabled/logger"],
        OutputNode::Symlink {
            target: "/usr/lib/systemd/systemd-journald".to_owned()
        }
    );
    let text = |path: &str| match &output.nodes[path] {
        OutputNode::File { bytes, .. } => String::from_utf8(bytes.clone()).unwrap(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(text("etc/looked"), "C 1\n");
    assert_eq!(text("etc/shadow-copy"), "refused\n");
    assert_eq!(run(from_environment("ESTIVE_REFERENCE")), output);
}
