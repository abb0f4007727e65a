//! What a set holds, told to a person: each path of the clone that it has a word on.

use serde::Serialize;

use crate::set_entries::What;
use crate::template_set::TemplateSet;

/// One path that a set makes, changes or hides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetFile {
    /// In the clone, from `/`; of a script, its path in the set.
    pub path: String,
    /// What is done there, in a few words.
    pub what: String,
}

impl TemplateSet {
    /// All its files, in the order of their paths; its scripts last. Directories only when the set
    /// says something of them.
    pub fn files(&self) -> Vec<SetFile> {
        let entries = &self.entries;
        let mut files = Vec::new();
        let mut add = |path: &str, what: String| {
            files.push(SetFile {
                path: format!("/{path}"),
                what: what + &self.told_of(path),
            });
        };
        for (path, entry) in &entries.nodes {
            let what = match &entry.what {
                What::File { .. } => "copied".to_owned(),
                What::Template { .. } => "rendered".to_owned(),
                What::Directory { empty } => {
                    let told = *empty || self.settings.files.contains_key(path);
                    if !told || entries.opaque.contains_key(path) {
                        continue;
                    }
                    "directory".to_owned()
                }
                What::Symlink(target) => format!("link to {target}"),
                What::Character { major, minor } => format!("character device {major}:{minor}"),
                What::Block { major, minor } => format!("block device {major}:{minor}"),
            };
            add(path, what);
        }
        for path in entries.whiteouts.keys() {
            add(path, "hidden".to_owned());
        }
        for path in entries.opaque.keys() {
            add(path, "emptied".to_owned());
        }
        let named = |path: &&String| {
            !entries.nodes.contains_key(*path) && !entries.opaque.contains_key(*path)
        };
        for path in self.settings.files.keys().filter(named) {
            add(path, "directory or file of its scripts".to_owned());
        }
        files.sort_by(|a, b| (&a.path, &a.what).cmp(&(&b.path, &b.what)));
        for (name, _) in self.scripts() {
            files.push(SetFile {
                path: format!(".scripts/{name}"),
                what: "script".to_owned(),
            });
        }
        files
    }

    /// `, mode 0600, uid 5, gid 6, left out when empty, attributes user.x`
    fn told_of(&self, path: &str) -> String {
        let mut told = String::new();
        let Some(settings) = self.settings.files.get(path) else {
            return told;
        };
        if let Some(mode) = settings.mode {
            told += &format!(", mode {mode:04o}");
        }
        for (what, id) in [("uid", settings.uid), ("gid", settings.gid)] {
            if let Some(id) = id {
                told += &format!(", {what} {id}");
            }
        }
        if settings.optional {
            told += ", left out when empty";
        }
        if !settings.xattrs.is_empty() {
            let names: Vec<&str> = settings.xattrs.keys().map(String::as_str).collect();
            told += &format!(", attributes {}", names.join(" "));
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_told_in_a_few_words() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "set.yaml",
            "files:\n  etc/key: {mode: \"0600\", uid: 5, gid: 6, optional: true, xattrs: {user.x: a}}\n  tmp: {mode: \"1777\"}\n  etc: {mode: \"0700\"}\n",
        );
        write("etc/key.j2", "");
        write("etc/motd", "");
        write("etc/.wh.issue", "");
        write("tmp/.wh.__dir_opaque", "");
        std::os::unix::fs::symlink("/dev/null", dir.path().join("etc/off")).unwrap();
        let set = TemplateSet::load("own", dir.path()).unwrap();
        let told: Vec<String> = set
            .files()
            .into_iter()
            .map(|file| format!("{}: {}", file.path, file.what))
            .collect();
        assert_eq!(
            told,
            [
                "/etc: directory, mode 0700",
                "/etc/issue: hidden",
                "/etc/key: rendered, mode 0600, uid 5, gid 6, left out when empty, attributes user.x",
                "/etc/motd: copied",
                "/etc/off: link to /dev/null",
                "/tmp: emptied, mode 1777",
            ]
        );
    }
}
