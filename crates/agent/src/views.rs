//! XML views of what the agent knows, beside the JSON ones.

use estive_api::wire::{AgentAbout, DomainReport};
use std::fmt::Write;

/// A list of domains with hyperlinks.
pub fn domains(reports: &[DomainReport]) -> String {
    let mut xml = String::from("<domains>\n");
    for report in reports {
        let name = &report.name;
        // Writing into a string cannot fail; names and states need no escaping.
        let _ = writeln!(
            xml,
            "  <domain name='{name}' state='{}' href='/domain/{name}'>\n    <config href='/domain/{name}/config.xml'/>\n    \
             <status href='/domain/{name}/status.xml'/>\n  </domain>",
            report.state
        );
    }
    xml.push_str("</domains>\n");
    xml
}

/// The state of one domain.
pub fn status(report: &DomainReport) -> String {
    format!("<status>\n  <state>{}</state>\n</status>\n", report.state)
}

/// libvirt's capabilities, as far as they are true here: which guests this host runs.
pub fn capabilities(about: &AgentAbout, kind: &str) -> String {
    format!(
        "<capabilities>\n  <host>\n    <cpu>\n      <arch>x86_64</arch>\n      <topology sockets='1' cores='{cores}' threads='1'/>\n    \
         </cpu>\n    <topology>\n      <cells num='1'>\n        <cell id='0'>\n          <memory unit='MiB'>{memory}</memory>\n        \
         </cell>\n      </cells>\n    </topology>\n    <migration_features>\n      <live/>\n    </migration_features>\n  </host>\n  \
         <guest>\n    <os_type>hvm</os_type>\n    <arch name='x86_64'>\n      <wordsize>64</wordsize>\n      \
         <machine>{machine}</machine>\n      <domain type='{kind}'/>\n    </arch>\n  </guest>\n</capabilities>\n",
        cores = about.capacity.cores,
        memory = about.capacity.memory_mib,
        machine = estive_api::domain_xml::MACHINE,
    )
}
