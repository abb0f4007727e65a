//! Laws of the grammar: reading what was printed, and never more than an error.

use proptest::prelude::*;

use super::*;

fn option(key: Option<&str>, value: &str) -> OptionText {
    OptionText {
        key: key.map(str::to_owned),
        value: value.to_owned(),
        at: At(0),
    }
}

fn device(chain: &[&str], options: &[OptionText]) -> DeviceText {
    DeviceText {
        chain: chain
            .iter()
            .map(|text| Name {
                text: (*text).to_owned(),
                at: At(0),
            })
            .collect(),
        options: options.to_vec(),
    }
}

fn one(text: &str) -> DeviceText {
    let mut line = RootLine::parse(text).unwrap_or_else(|problem| panic!("{}", problem.pointed()));
    assert_eq!(line.devices.len(), 1, "{text}");
    line.devices.remove(0)
}

#[test]
fn the_examples_of_the_paper_are_read_as_written() {
    let bare = |values: &[&str]| -> Vec<OptionText> {
        values.iter().map(|value| option(None, value)).collect()
    };
    for (text, devices) in [
        (
            "/dev/sda1;/dev/sda2",
            vec![
                device(&["block"], &bare(&["/dev/sda1"])),
                device(&["block"], &bare(&["/dev/sda2"])),
            ],
        ),
        (
            "nfs:10.0.0.1:/:ro;nfs:10.0.0.1:/var/state/systems/clone01:ro;tmpfs:rw",
            vec![
                device(&["nfs"], &bare(&["10.0.0.1", "/", "ro"])),
                device(
                    &["nfs"],
                    &bare(&["10.0.0.1", "/var/state/systems/clone01", "ro"]),
                ),
                device(&["tmpfs"], &bare(&["rw"])),
            ],
        ),
        (
            "lvm2+md:/dev/vg/volume:/dev/md0,/dev/md1",
            vec![device(
                &["lvm2", "md"],
                &bare(&["/dev/vg/volume", "/dev/md0,/dev/md1"]),
            )],
        ),
    ] {
        let line = RootLine::parse(text).unwrap();
        assert_eq!(line, RootLine { devices }, "{text}");
        assert_eq!(line.to_string(), text);
    }
}

#[test]
fn quoting_is_taken_off() {
    for (text, expected) in [
        ("a:[fd00::1]", option(None, "fd00::1")),
        ("a:[b:c;d]", option(None, "b:c;d")),
        ("a:[b][c]", option(None, "[b][c]")),
        ("a:x[b:c]", option(None, "x[b:c]")),
        ("a:[]", option(None, "")),
        ("a:[k=v]", option(None, "k=v")),
        ("a:k=v", option(Some("k"), "v")),
        ("a:k=", option(Some("k"), "")),
        ("a:k=[b:c]", option(Some("k"), "b:c")),
        ("a:/b=c", option(None, "/b=c")),
        ("a:b%20c%3A%C3%BC", option(None, "b c:ü")),
        ("a:size=50%", option(Some("size"), "50%")),
        ("a:%5B", option(None, "[")),
        ("UUID=a-b", option(Some("UUID"), "a-b")),
        ("a:http://h:80/x:y", option(None, "http://h:80/x")),
        ("a:http://h/x%20y", option(None, "http://h/x%20y")),
        (
            "a:http://[fd00::1]:8080/x",
            option(None, "http://[fd00::1]:8080/x"),
        ),
        ("a:[http://h/x;y:z]", option(None, "http://h/x;y:z")),
        ("a:u=http://h:80/x", option(Some("u"), "http://h:80/x")),
    ] {
        let first = one(text).options.remove(0);
        assert_eq!(first, expected, "{text}");
    }
    let options = one("a:http://h:80/x:y:ro").options;
    assert_eq!(
        options,
        [
            option(None, "http://h:80/x"),
            option(None, "y"),
            option(None, "ro")
        ]
    );
    assert_eq!(RootLine::parse("a;b;").unwrap().devices.len(), 2);
}

#[test]
fn errors_point_at_the_character() {
    for (text, at, words) in [
        ("", 0, "no device"),
        (";", 0, "missing before this `;`"),
        ("a;;b", 2, "missing before this `;`"),
        ("nfs:", 4, "an option is missing"),
        ("nfs:a:", 6, "an option is missing"),
        ("nfs::a", 4, "an option is missing"),
        ("Nfs:a", 0, "name of a loader"),
        ("a+:b", 2, "name of a loader"),
        ("a;+b", 2, "name of a loader"),
        ("a,b", 1, "expected `:`"),
        ("nfs:[fd00::1:/", 4, "`[` without its `]`"),
        ("nfs:fd00]:/", 8, "`]` without its `[`"),
        ("a:b%zz", 3, "two hexadecimal digits"),
        ("a:[b%z]", 4, "two hexadecimal digits"),
        ("a:%0a", 2, "control character"),
        ("a:b%ff", 3, "not UTF-8"),
        ("a:b c", 3, "write %20"),
        ("a:ü", 2, "write %C3%BC"),
    ] {
        let problem = RootLine::parse(text).expect_err(text);
        assert_eq!(problem.at, at, "{text}: {problem}");
        assert!(problem.to_string().contains(words), "{text}: {problem}");
    }
    let problem = RootLine::parse("nfs:10.0.0.1:/;tmpfs:").unwrap_err();
    assert_eq!(
        problem.pointed().lines().collect::<Vec<_>>(),
        [
            "nfs:10.0.0.1:/;tmpfs:",
            "                     ^",
            "an option is missing here (write [] for one that is empty)"
        ]
    );
}

#[test]
fn a_line_has_an_end() {
    let many = vec!["a"; DEVICES_MAX + 1].join(";");
    let problem = RootLine::parse(&many).unwrap_err();
    assert_eq!(problem.at, 2 * DEVICES_MAX);
}

#[test]
fn the_laws_hold_for_the_corpus_of_the_fuzz_target() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/root_line");
    let mut tried = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        laws::hold(&std::fs::read(entry.unwrap().path()).unwrap());
        tried += 1;
    }
    assert!(tried > 20, "{tried}");
}

fn values() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c:;%\\[\\]/=?#0-9 \"ü]{0,12}",
        "(http|ftp|a)(://)?[a-c:;%\\[\\]/=?#0-9 \"ü]{0,12}",
        "//[a-c:]{0,3}",
        "(UUID|LABEL|ro|rw)?=?[a-c0-9]{0,3}",
    ]
}

fn lines() -> impl Strategy<Value = RootLine> {
    let key = proptest::option::of("[A-Za-z][A-Za-z0-9_]{0,4}|UUID|LABEL");
    let options = proptest::collection::vec((key, values()), 0..5).prop_map(|options| {
        options
            .into_iter()
            .map(|(key, value)| option(key.as_deref(), &value))
            .collect::<Vec<_>>()
    });
    let chain = proptest::collection::vec("[a-z0-9][a-z0-9_-]{0,4}|block", 1..4);
    let device = (chain, options).prop_map(|(chain, options)| {
        let chain: Vec<&str> = chain.iter().map(String::as_str).collect();
        device(&chain, &options)
    });
    proptest::collection::vec(device, 1..5).prop_map(|devices| RootLine { devices })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_printed_is_read_as_the_same(line in lines()) {
        let text = line.to_string();
        let read = RootLine::parse(&text)
            .map_err(|problem| TestCaseError::fail(problem.pointed()))?;
        prop_assert_eq!(&read, &line, "{}", text);
        // What is printed once is how it is written.
        prop_assert_eq!(read.to_string(), text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[a-c+:;%\\[\\]/=0-9 .\u{0}-\u{ff}]{0,40}") {
        laws::hold(text.as_bytes());
    }
}
