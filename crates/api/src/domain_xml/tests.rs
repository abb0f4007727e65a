//! Tests of the domain XML: a golden round trip, refusals by name and line, hostile documents.

use super::*;

fn example() -> DomainXml {
    let digest = |digit: &str| Digest::new(format!("sha256:{}", digit.repeat(64))).unwrap();
    DomainXml {
        accelerator: Accelerator::Emulation,
        name: DomainName::new("clone01").unwrap(),
        uuid: "8d2f0a3e-0000-4000-8000-00000000000a".into(),
        memory_mib: 256,
        cpus: 1,
        kernel: digest("a"),
        initramfs: digest("b"),
        command_line: "console=ttyS0 quiet x=\"<&>'\"".into(),
        identity_by_fw_cfg: true,
        root: DiskSource::Nbd(NbdSource {
            host: "10.77.0.5".into(),
            port: 10809,
            export: "sha256:0f0f".into(),
            tls: true,
        }),
        modules: DiskSource::File(digest("c")),
        volume: None,
        live: None,
        mac: Some("52:54:00:00:00:01".into()),
    }
}

const GOLDEN: &str = r#"<domain type='qemu'>
  <name>clone01</name>
  <uuid>8d2f0a3e-0000-4000-8000-00000000000a</uuid>
  <memory unit='MiB'>256</memory>
  <currentMemory unit='MiB'>256</currentMemory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <kernel>sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa</kernel>
    <initrd>sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb</initrd>
    <cmdline>console=ttyS0 quiet x=&quot;&lt;&amp;&gt;&apos;&quot;</cmdline>
  </os>
  <sysinfo type='fwcfg'>
    <entry name='opt/org.estive/identity' file='identity.json'/>
  </sysinfo>
  <features>
    <acpi/>
  </features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='layer'/>
      <target dev='vda' bus='virtio'/>
      <serial>estive-layer</serial>
      <readonly/>
    </disk>
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='nbd' name='sha256:0f0f' tls='yes'>
        <host name='10.77.0.5' port='10809'/>
        <reconnect delay='60'/>
      </source>
      <target dev='vdb' bus='virtio'/>
      <serial>estive-root</serial>
      <readonly/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc'/>
      <target dev='vdc' bus='virtio'/>
      <serial>estive-modules</serial>
      <readonly/>
    </disk>
    <interface type='bridge'>
      <mac address='52:54:00:00:00:01'/>
      <source bridge='host'/>
      <model type='virtio'/>
    </interface>
    <serial type='unix'/>
    <console type='pty'/>
    <memballoon model='none'/>
    <rng model='virtio'/>
  </devices>
</domain>
"#;

#[test]
fn what_is_written_is_golden_and_read_back_the_same() {
    assert_eq!(example().to_xml(), GOLDEN);
    assert_eq!(DomainXml::parse(GOLDEN).unwrap(), example());
    let bare = DomainXml {
        accelerator: Accelerator::Kvm,
        command_line: String::new(),
        identity_by_fw_cfg: false,
        root: example().modules,
        mac: None,
        ..example()
    };
    assert_eq!(DomainXml::parse(&bare.to_xml()).unwrap(), bare);
    assert_eq!(bare.digests().len(), 3);
}

const SEALED: &str = "      <source protocol='nbd' name='sha256:dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd'>
        <host transport='unix' socket='cache'/>
        <reconnect delay='60'/>
        <origin url='https://10.77.0.5:7610'/>
        <origin url='https://[fd00::5]:7610'/>
      </source>
";

#[test]
fn a_sealed_root_is_golden_too_and_only_its_own_form_is_taken() {
    let digest = Digest::new(format!("sha256:{}", "d".repeat(64))).unwrap();
    let origins = ["https://10.77.0.5:7610", "https://[fd00::5]:7610"];
    let sealed = DomainXml {
        root: DiskSource::Root(RootSource {
            name: digest,
            origins: origins.map(|url| url.parse().unwrap()).into(),
        }),
        ..example()
    };
    let text = sealed.to_xml();
    assert!(text.contains(SEALED), "{text}");
    assert_eq!(DomainXml::parse(&text).unwrap(), sealed);
    assert_eq!(
        sealed.digests().len(),
        3,
        "the host's cache gets it, not the agent"
    );
    for (from, to, words) in [
        ("socket='cache'", "socket='/run/other'", "socket"),
        ("transport='unix'", "transport='tcp'", "transport"),
        (
            "https://10.77.0.5:7610",
            "unix:/run/docker.sock",
            "unix socket",
        ),
        ("https://10.77.0.5:7610", "http://10.77.0.5:7610", "https"),
        ("name='sha256:d", "name='d", "digest"),
        (
            "<origin url='https://10.77.0.5:7610'/>",
            &"<origin url='https://a:1'/>".repeat(16),
            "1 to 16",
        ),
        ("<reconnect delay='60'/>", "<reconnect delay='6'/>", "delay"),
        (
            "<origin url='https://10",
            "<origin path='x' url='https://10",
            "path",
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let error = DomainXml::parse(&text.replace(from, to)).unwrap_err();
        assert!(error.reason.contains(words), "{to}: {error}");
    }
    let none: String = text
        .lines()
        .filter(|line| !line.contains("<origin"))
        .collect();
    assert!(
        DomainXml::parse(&none)
            .unwrap_err()
            .reason
            .contains("1 to 16")
    );
}

const LIVE: &str = "  <metadata>
    <live name='demo' door='10.77.0.9:2049'>
      <origin url='https://10.77.0.5:7610'/>
    </live>
  </metadata>
";

#[test]
fn a_live_reference_is_golden_too_and_no_door_leads_out_of_the_herd() {
    let live = DomainXml {
        live: Some(LiveSource {
            reference: "demo".into(),
            door: "10.77.0.9:2049".parse().unwrap(),
            origins: vec!["https://10.77.0.5:7610".parse().unwrap()],
        }),
        ..example()
    };
    let text = live.to_xml();
    assert!(text.contains(LIVE), "{text}");
    assert_eq!(DomainXml::parse(&text).unwrap(), live);
    for (from, to, words) in [
        ("name='demo'", "name='../demo'", "letters"),
        ("name='demo'", "name=''", "letters"),
        ("10.77.0.9:2049", "10.77.0.9", "ADDRESS:PORT"),
        ("10.77.0.9:2049", "host:2049", "ADDRESS:PORT"),
        ("https://10.77.0.5:7610", "unix:/run/x", "unix socket"),
        ("<origin url='https://10.77.0.5:7610'/>", "", "1 to 16"),
        ("<metadata>", "<metadata><other/>", "other"),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        let error = DomainXml::parse(&text.replace(from, to)).unwrap_err();
        assert!(error.reason.contains(words), "{to}: {error}");
    }
}

#[test]
fn comments_a_declaration_and_character_references_change_nothing() {
    let text = format!("<?xml version='1.0'?>\n<!-- a clone -->\n{GOLDEN}")
        .replace("clone01", "clone&#48;1");
    assert_eq!(DomainXml::parse(&text).unwrap(), example());
}

#[test]
fn what_is_outside_the_subset_is_refused_by_name_and_line() {
    for (from, to, line, words) in [
        ("<acpi/>", "<apic/>", 17, "<apic>"),
        ("<vcpu>1", "<vcpu placement='static'>1", 6, "\"placement\""),
        (
            "<serial type='unix'/>",
            "<serial type='pty'/>",
            48,
            "<serial>",
        ),
        ("<rng model='virtio'/>", "<tpm model='x'/>", 51, "<tpm>"),
        (
            "<rng model='virtio'/>",
            "<rng model='virtio'><backend/></rng>",
            51,
            "<backend>",
        ),
        ("machine='pc-q35-7.2'", "machine='pc'", 8, "<type>"),
        (
            "unit='MiB'>256</memory",
            "unit='KiB'>256</memory",
            4,
            "<memory>",
        ),
        (
            "<currentMemory unit='MiB'>256",
            "<currentMemory unit='MiB'>128",
            5,
            "<currentMemory>",
        ),
        ("<name>clone01", "<name>../clone01", 2, "<name>"),
        ("file='layer'", "file='/etc/shadow'", 23, "<source>"),
        ("delay='60'", "delay='1'", 32, "<reconnect>"),
        ("bridge='host'", "bridge='br0'", 47, "<source>"),
        ("name='sha256:0f0f'", "name='a,b=c'", 30, "<source>"),
        (
            "<host name='10.77.0.5'",
            "<host name='10.77.0.5,x'",
            31,
            "<host>",
        ),
        ("52:54:00:00:00:01", "53:54:00:00:00:01", 45, "<mac>"),
        (
            "      <readonly/>\n    </disk>\n    <interface",
            "    </disk>\n    <interface",
            37,
            "readonly",
        ),
        (
            "<name>clone01</name>",
            "<name>a</name><name>b</name>",
            2,
            "<name>",
        ),
        ("<features>", "<features>text", 16, "<features>"),
        ("<vcpu>1</vcpu>", "<vcpu>&bang;</vcpu>", 6, "entity"),
        ("<vcpu>1</vcpu>", "<vcpu>0</vcpu>", 6, "<vcpu>"),
    ] {
        let text = GOLDEN.replacen(from, to, 1);
        assert_ne!(text, GOLDEN, "{from}");
        let error = DomainXml::parse(&text).expect_err(to);
        assert!(error.reason.contains(words), "{to}: {error}");
        let written = line_of(&text, to);
        assert!(
            error.line == line || error.line == written,
            "{to}: {error}, written on line {written}"
        );
    }
}

fn line_of(text: &str, part: &str) -> usize {
    let at = text.find(part).unwrap();
    text[..at].matches('\n').count() + 1
}

#[test]
fn hostile_documents_end_in_an_error() {
    let deep = "<a>".repeat(100_000);
    let many = format!("<domain>{}</domain>", "<a/>".repeat(10_000));
    for text in [
        "",
        "<",
        "<domain",
        "<domain/>",
        "<domain/><domain/>",
        "text",
        "<!DOCTYPE domain [<!ENTITY a 'b'>]><domain/>",
        "<?php x?><domain/>",
        "<domain type='qemu' type='kvm'/>",
        "<domain></domains>",
        deep.as_str(),
        many.as_str(),
    ] {
        assert!(DomainXml::parse(text).is_err(), "{:.40}", text);
    }
}

#[test]
fn a_status_is_one_state() {
    let status = "<status><state>stopped</state></status>";
    assert_eq!(parse_status(status).unwrap(), DomainState::Stopped);
    assert!(parse_status("<status><state>flying</state></status>").is_err());
    assert!(parse_status("<status/>").is_err());
}
