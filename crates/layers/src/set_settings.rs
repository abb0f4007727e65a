//! `set.yaml`: what the file system of a checkout cannot say of a template set. Its variables, the
//! services that a changed file restarts, and modes, owners and attributes of files.

use std::collections::BTreeMap;

use estive_archive::Service;

use crate::error::LayerError;
use crate::problem::shown;
use crate::reserved;
use crate::set_variable::{SetVariable, VariableType};
use crate::templates;
use crate::yaml::{self, Key, Node, Position, Value};

/// The file's name, at the top of a set.
pub(crate) const SETTINGS: &str = "set.yaml";

const MAX_HELP_CHARS: usize = 300;
const MAX_VARIABLES: usize = 1_000;
const MAX_SERVICES: usize = 256;
const MAX_LIST_ITEMS: usize = 64;
const MAX_XATTRS: usize = 64;

/// What a set says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SetSettings {
    /// One line on what it is for.
    pub help: String,
    /// What it reads from the herd file, as far as it is declared.
    pub variables: BTreeMap<String, SetVariable>,
    /// Of all of them with their defaults.
    pub variables_weight: usize,
    /// What is told when a file of a running clone changes.
    pub services: Vec<Service>,
    /// By path in the clone.
    pub files: BTreeMap<String, Settings>,
}

/// What `set.yaml` says of one path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    pub mode: Option<u32>,
    /// As in the set without it.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Left out when it renders to nothing but white space.
    pub optional: bool,
    /// Extended attributes; the values are text.
    pub xattrs: BTreeMap<String, String>,
}

/// A place, and what is wrong there.
type Fault = (Position, String);

impl SetSettings {
    /// Reads the file of the set of this name.
    pub fn parse(set: &str, bytes: &[u8]) -> Result<Self, LayerError> {
        let text = std::str::from_utf8(bytes).map_err(|_| LayerError::Set {
            set: set.to_owned(),
            path: SETTINGS.to_owned(),
            what: "is not UTF-8".to_owned(),
        })?;
        Self::read(text).map_err(|(at, what)| LayerError::Set {
            set: set.to_owned(),
            path: format!("{SETTINGS}:{at}"),
            what,
        })
    }

    fn read(text: &str) -> Result<Self, Fault> {
        const KEYS: [&str; 4] = ["help", "variables", "services", "files"];
        let root = yaml::parse(text)?;
        let mut settings = Self::default();
        for (key, node) in mapping(&root, "a set.yaml")? {
            match key.text.as_str() {
                "help" => settings.help = help(node)?,
                "variables" => {
                    settings.variables = variables(node)?;
                    let weight = |variable: &SetVariable| {
                        let default = variable.default.as_ref();
                        1 + default.map_or(0, |default| default.value.weight())
                    };
                    settings.variables_weight = settings.variables.values().map(weight).sum();
                }
                "services" => settings.services = services(node)?,
                "files" => {
                    for (path, node) in mapping(node, "files")? {
                        estive_archive::check_path(&path.text)
                            .map_err(|error| (path.at, format!("files: {error}")))?;
                        settings.files.insert(path.text.clone(), file(node)?);
                    }
                }
                _ => return Err(unknown(key, "a set.yaml", &KEYS)),
            }
        }
        Ok(settings)
    }
}

fn variables(node: &Node) -> Result<BTreeMap<String, SetVariable>, Fault> {
    let mut variables = BTreeMap::new();
    for (key, node) in mapping(node, "variables")? {
        if variables.len() >= MAX_VARIABLES {
            return Err((key.at, format!("more than {MAX_VARIABLES} variables")));
        }
        let name = key.text.as_str();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty()
            || !name.chars().all(plain)
            || name.starts_with(|c: char| c.is_ascii_digit())
        {
            let what = format!(
                "{} is no name that a template can read: use letters, digits and '_', not first a digit",
                shown(name)
            );
            return Err((key.at, what));
        }
        let ours = reserved::KEYS
            .iter()
            .any(|(reserved, ..)| *reserved == name);
        if ours || templates::TEMPLATE_NAMES.contains(&name) {
            let what = format!("{name} is a word of Estive's own; choose another name");
            return Err((key.at, what));
        }
        variables.insert(name.to_owned(), variable(key, node)?);
    }
    Ok(variables)
}

fn variable(key: &Key, node: &Node) -> Result<SetVariable, Fault> {
    const KEYS: [&str; 4] = ["type", "default", "optional", "help"];
    let name = &key.text;
    let mut variable = SetVariable {
        kind: VariableType::Any,
        optional: false,
        help: String::new(),
        key_at: key.at,
        default: None,
    };
    let mut typed = false;
    for (key, node) in mapping(node, "a variable")? {
        match (key.text.as_str(), &node.value) {
            ("type", value) => {
                let kind = match value {
                    Value::Text(text) => VariableType::parse(text),
                    _ => None,
                };
                let names: Vec<&str> = VariableType::NAMES.iter().map(|(name, _)| *name).collect();
                let what = || (node.at, format!("type is one of {}", names.join(", ")));
                variable.kind = kind.ok_or_else(what)?;
                typed = true;
            }
            ("default", _) => variable.default = Some(node.clone()),
            ("optional", Value::Bool(optional)) => variable.optional = *optional,
            ("optional", other) => {
                let what = format!("optional is true or false; this is {}", other.kind());
                return Err((node.at, what));
            }
            ("help", _) => variable.help = help(node)?,
            _ => return Err(unknown(key, "a variable", &KEYS)),
        }
    }
    if !typed {
        return Err((key.at, format!("{name} needs its type:")));
    }
    if let Some(default) = &variable.default {
        if variable.optional {
            let what = format!("{name} has a default, so it is never undefined; drop optional:");
            return Err((key.at, what));
        }
        if !variable.kind.takes_value(&default.value) {
            let what = format!(
                "the default of {name} should be {}; this is {}",
                variable.kind.wanted(),
                default.value.kind()
            );
            return Err((default.at, what));
        }
    }
    Ok(variable)
}

fn services(node: &Node) -> Result<Vec<Service>, Fault> {
    const KEYS: [&str; 3] = ["files", "restart", "reload"];
    const WANTED: &str =
        "of a service there are files: [GLOB] and restart: [NAME] or reload: [NAME]";
    let Value::List(items) = &node.value else {
        let what = format!("services is a list; this is {}", node.value.kind());
        return Err((node.at, what));
    };
    if items.len() > MAX_SERVICES {
        return Err((node.at, format!("more than {MAX_SERVICES} services")));
    }
    let mut services = Vec::new();
    for item in items {
        let mut service = Service::default();
        for (key, node) in mapping(item, "a service")? {
            match key.text.as_str() {
                "files" => service.files = texts(node, "files", check_glob)?,
                "restart" => service.restart = texts(node, "restart", check_service)?,
                "reload" => service.reload = texts(node, "reload", check_service)?,
                _ => return Err(unknown(key, "a service", &KEYS)),
            }
        }
        if service.files.is_empty() || (service.restart.is_empty() && service.reload.is_empty()) {
            return Err((item.at, WANTED.to_owned()));
        }
        service
            .check()
            .map_err(|error| (item.at, error.to_string()))?;
        services.push(service);
    }
    Ok(services)
}

fn check_glob(glob: &str) -> Result<(), String> {
    let part_fits = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && (part == "**" || !part.contains("**"))
    };
    if glob.len() <= 4096 && !glob.contains('\0') && glob.split('/').all(part_fits) {
        Ok(())
    } else {
        Err(format!(
            "{} is no glob over the clone's paths: no '/' first or last, no '..', '**' only between slashes",
            shown(glob)
        ))
    }
}

/// The name is given to the clone's init system as an argument.
fn check_service(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "_.@:-".contains(c);
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if name.len() <= 128 && name.chars().all(fits) && starts_well {
        Ok(())
    } else {
        Err(format!(
            "{} is no name of a service: use letters, digits and _.@:-, first a letter or digit",
            shown(name)
        ))
    }
}

fn file(node: &Node) -> Result<Settings, Fault> {
    const KEYS: [&str; 5] = ["mode", "uid", "gid", "optional", "xattrs"];
    let mut settings = Settings::default();
    for (key, node) in mapping(node, "a file's settings")? {
        let id = |value: i64| {
            u32::try_from(value)
                .ok()
                // -1 means "leave it" to chown(2).
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| (node.at, format!("{value} is no {}", key.text)))
        };
        match (key.text.as_str(), &node.value) {
            ("mode", Value::Text(text)) => {
                let octal = (1..=5).contains(&text.len())
                    && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
                let mode = u32::from_str_radix(text, 8).ok();
                let mode = mode.filter(|mode| octal && *mode <= 0o7777);
                let what = || (node.at, format!("{} is no mode, as \"0644\"", shown(text)));
                settings.mode = Some(mode.ok_or_else(what)?);
            }
            ("mode", _) => {
                let what = "a mode is written in quotes, as \"0644\"";
                return Err((node.at, what.to_owned()));
            }
            ("uid", Value::Integer(value)) => settings.uid = Some(id(*value)?),
            ("gid", Value::Integer(value)) => settings.gid = Some(id(*value)?),
            ("optional", Value::Bool(optional)) => settings.optional = *optional,
            ("xattrs", Value::Map(entries)) => settings.xattrs = xattrs(entries)?,
            (name, value) if KEYS.contains(&name) => {
                let wanted = match name {
                    "optional" => "true or false",
                    "xattrs" => "a mapping of names to texts",
                    _ => "a number",
                };
                let what = format!("{name} is {wanted}; this is {}", value.kind());
                return Err((node.at, what));
            }
            _ => return Err(unknown(key, "a file", &KEYS)),
        }
    }
    Ok(settings)
}

fn xattrs(entries: &[(Key, Node)]) -> Result<BTreeMap<String, String>, Fault> {
    let mut xattrs = BTreeMap::new();
    for (key, node) in entries {
        let name = key.text.as_str();
        let Value::Text(text) = &node.value else {
            let what = format!("{} is a text; this is {}", shown(name), node.value.kind());
            return Err((node.at, what));
        };
        // Names and sizes that the kernel takes (xattr(7)); overlayfs's own would make the layer
        // something else than what it shows.
        let known = ["user.", "security.", "trusted."]
            .iter()
            .any(|space| name.len() > space.len() && name.starts_with(space));
        let overlay = name.starts_with("user.overlay.") || name.starts_with("trusted.overlay.");
        if !known || overlay || name.len() > 255 || name.contains('\0') {
            let what = format!(
                "{} is no attribute for a file of a set: user.NAME, security.NAME or trusted.NAME, not overlayfs's own",
                shown(name)
            );
            return Err((key.at, what));
        }
        if text.len() > 4096 || xattrs.len() >= MAX_XATTRS {
            let what = format!("a file has at most {MAX_XATTRS} attributes of at most 4096 bytes");
            return Err((node.at, what));
        }
        xattrs.insert(name.to_owned(), text.clone());
    }
    Ok(xattrs)
}

fn mapping<'a>(node: &'a Node, what: &str) -> Result<&'a [(Key, Node)], Fault> {
    match &node.value {
        Value::Map(entries) => Ok(entries),
        other => Err((
            node.at,
            format!("{what} is a mapping; this is {}", other.kind()),
        )),
    }
}

fn texts(
    node: &Node,
    what: &str,
    check: impl Fn(&str) -> Result<(), String>,
) -> Result<Vec<String>, Fault> {
    let Value::List(items) = &node.value else {
        let kind = node.value.kind();
        return Err((node.at, format!("{what} is a list; this is {kind}")));
    };
    if items.len() > MAX_LIST_ITEMS {
        let what = format!("{what} has at most {MAX_LIST_ITEMS} items");
        return Err((node.at, what));
    }
    let text = |item: &Node| match &item.value {
        Value::Text(text) => check(text)
            .map(|()| text.clone())
            .map_err(|what| (item.at, what)),
        other => {
            let kind = other.kind();
            Err((
                item.at,
                format!("{what} is a list of texts; this is {kind}"),
            ))
        }
    };
    items.iter().map(text).collect()
}

fn help(node: &Node) -> Result<String, Fault> {
    match &node.value {
        Value::Text(text)
            if text.chars().count() <= MAX_HELP_CHARS && !text.chars().any(char::is_control) =>
        {
            Ok(text.clone())
        }
        _ => {
            let what = format!("help is one line of at most {MAX_HELP_CHARS} characters");
            Err((node.at, what))
        }
    }
}

fn unknown(key: &Key, what: &str, keys: &[&str]) -> Fault {
    let hint = match reserved::nearest(&key.text, keys.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("{what} has {}", keys.join(", ")),
    };
    (key.at, format!("unknown key {}; {hint}", shown(&key.text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> SetSettings {
        SetSettings::parse("own", text.as_bytes()).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn everything_a_set_may_say_is_read() {
        let settings = read(
            "
help: one line
variables:
  greeting: {type: text, default: hi, help: on the page}
  page: {type: text, optional: true}
  workers: {type: integer}
services:
  - {files: [\"etc/nginx/**\", var/www/*.html], restart: [nginx]}
  - {files: [etc/ssh/sshd_config], reload: [ssh@1.service]}
files:
  etc/key: {mode: \"0600\", uid: 5, gid: 6, optional: true, xattrs: {user.x: text}}
",
        );
        assert_eq!(settings.help, "one line");
        let greeting = &settings.variables["greeting"];
        assert_eq!(greeting.default(), Some("hi".into()));
        assert_eq!(
            (greeting.required(), greeting.help.as_str()),
            (false, "on the page")
        );
        assert!(!settings.variables["page"].required());
        assert!(settings.variables["workers"].required());
        assert_eq!(settings.variables["workers"].kind, VariableType::Integer);
        assert_eq!(settings.services[0].restart, ["nginx"]);
        assert_eq!(settings.services[1].reload, ["ssh@1.service"]);
        assert!(settings.services[0].concerns("etc/nginx/sites-enabled/default"));
        assert_eq!(
            settings.services[0].files,
            ["etc/nginx/**", "var/www/*.html"]
        );
        let key = &settings.files["etc/key"];
        assert_eq!(
            (key.mode, key.uid, key.gid, key.optional),
            (Some(0o600), Some(5), Some(6), true)
        );
        assert_eq!(key.xattrs["user.x"], "text");
    }

    #[test]
    fn complaints_word_for_word() {
        for (text, expected) in [
            ("- a", "1:1: a set.yaml is a mapping; this is a list"),
            ("fils: {}", "1:1: unknown key \"fils\"; did you mean files?"),
            (
                "other: {}",
                "1:1: unknown key \"other\"; a set.yaml has help, variables, services, files",
            ),
            (
                "help: [x]",
                "1:7: help is one line of at most 300 characters",
            ),
            (
                "variables: {x: {typ: text}}",
                "1:17: unknown key \"typ\"; a variable has type, default, optional, help",
            ),
            (
                "variables: {x: {type: string}}",
                "1:23: type is one of text, integer, number, boolean, list, mapping, any",
            ),
            ("variables: {x: {}}", "1:13: x needs its type:"),
            (
                "variables: {x: {type: text, default: 5}}",
                "1:38: the default of x should be a text; this is a number",
            ),
            (
                "variables: {x: {type: text, default: a, optional: true}}",
                "1:13: x has a default, so it is never undefined; drop optional:",
            ),
            (
                "variables: {x: {type: text, optional: yes}}",
                "1:39: optional is true or false; this is a text",
            ),
            (
                "variables: {x-y: {type: text}}",
                "1:13: \"x-y\" is no name that a template can read: use letters, digits and '_', not first a digit",
            ),
            (
                "variables: {cpus: {type: integer}}",
                "1:13: cpus is a word of Estive's own; choose another name",
            ),
            (
                "variables: {secrets: {type: any}}",
                "1:13: secrets is a word of Estive's own; choose another name",
            ),
            (
                "services: {}",
                "1:11: services is a list; this is a mapping",
            ),
            (
                "services: [{files: [a]}]",
                "1:12: of a service there are files: [GLOB] and restart: [NAME] or reload: [NAME]",
            ),
            (
                "services: [{files: [/a], restart: [b]}]",
                "1:21: \"/a\" is no glob over the clone's paths: no '/' first or last, no '..', '**' only between slashes",
            ),
            (
                "services: [{files: [a**], restart: [b]}]",
                "1:21: \"a**\" is no glob over the clone's paths: no '/' first or last, no '..', '**' only between slashes",
            ),
            (
                "services: [{files: [a], restart: [--now]}]",
                "1:35: \"--now\" is no name of a service: use letters, digits and _.@:-, first a letter or digit",
            ),
            (
                "services: [{files: [a], restart: b}]",
                "1:34: restart is a list; this is a text",
            ),
            (
                "files: {a: {mode: 644}}",
                "1:19: a mode is written in quotes, as \"0644\"",
            ),
            (
                "files: {a: {mode: \"+644\"}}",
                "1:19: \"+644\" is no mode, as \"0644\"",
            ),
            ("files: {a: {uid: -1}}", "1:18: -1 is no uid"),
            (
                "files: {a: {gid: x}}",
                "1:18: gid is a number; this is a text",
            ),
            (
                "files: {a: {moed: \"0644\"}}",
                "1:13: unknown key \"moed\"; did you mean mode?",
            ),
            (
                "files: {a: {xattrs: {trusted.overlay.opaque: y}}}",
                "1:22: \"trusted.overlay.opaque\" is no attribute for a file of a set: user.NAME, security.NAME or trusted.NAME, not overlayfs's own",
            ),
            (
                "files: {a: {xattrs: {user.x: 5}}}",
                "1:30: \"user.x\" is a text; this is a number",
            ),
        ] {
            let error = SetSettings::parse("own", text.as_bytes()).unwrap_err();
            let expected = format!("the template set own: set.yaml:{expected}");
            assert_eq!(error.to_string(), expected, "{text}");
        }
        for bad in [
            "files: {../x: {}}",
            "files: {/etc/x: {}}",
            "files: {\"\": {}}",
        ] {
            assert!(SetSettings::parse("own", bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
