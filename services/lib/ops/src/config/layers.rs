//! Layers of TOML, and who set what.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// A path into the tree: `["batch", "size_max"]`.
type Key = Vec<String>;

/// Defaults with a file and the environment laid over them.
pub(super) struct Layers {
    defaults: Table,
    merged: Table,
    /// Who set a leaf, for messages; leaves of the defaults are not listed.
    origins: BTreeMap<Key, String>,
    /// The plain text of a variable that was understood as something else (`123` for a text field).
    texts: BTreeMap<Key, String>,
    errors: Vec<String>,
}

impl Layers {
    pub(super) fn new(defaults: &str) -> Result<Self, String> {
        let defaults: Table =
            toml::from_str(defaults).map_err(|error| syntax_error("built-in defaults", defaults, &error))?;
        let merged = defaults.clone();
        Ok(Layers { defaults, merged, origins: BTreeMap::new(), texts: BTreeMap::new(), errors: vec![] })
    }

    pub(super) fn add_file(&mut self, file: &Path) {
        let shown = file.display().to_string();
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) => return self.errors.push(format!("{shown}: {error}")),
        };
        match toml::from_str::<Table>(&text) {
            Ok(table) => self.overlay(&mut vec![], table, &format!("in {shown}")),
            Err(error) => self.errors.push(syntax_error(&shown, &text, &error)),
        }
    }

    pub(super) fn add_environment(&mut self, prefix: &str, env: impl Iterator<Item = (String, String)>) {
        let prefix = format!("{prefix}__");
        let mut variables: Vec<_> = env.filter(|(name, _)| name.starts_with(&prefix)).collect();
        variables.sort();
        for (name, text) in variables {
            let key: Key = name[prefix.len()..].to_lowercase().split("__").map(String::from).collect();
            let value = self.parse_variable(&key, &text);
            if !value.is_str() {
                self.texts.insert(key.clone(), text);
            }
            self.set(&key, value, &format!("environment variable {name}"));
        }
    }

    /// Deserialises; each value that does not fit is noted and put back to its default, until the rest fits.
    pub(super) fn read<Raw: DeserializeOwned>(mut self) -> Result<Raw, Vec<String>> {
        loop {
            let mut unknown: Vec<Key> = Vec::new();
            let mut note = |path: serde_ignored::Path<'_>| {
                let shown = path.to_string();
                unknown.push(shown.split('.').filter(|part| *part != "?").map(String::from).collect());
            };
            let tree = Value::Table(self.merged.clone());
            let result: Result<Raw, _> =
                serde_path_to_error::deserialize(serde_ignored::Deserializer::new(tree, &mut note));
            match result {
                Ok(raw) => {
                    for key in unknown {
                        let origin = self.origin(&key).map_or("built-in defaults", |(_, by)| by);
                        self.errors.push(format!("{}: unknown key ({origin})", key.join(".")));
                    }
                    return if self.errors.is_empty() { Ok(raw) } else { Err(self.errors) };
                }
                Err(error) => {
                    if !self.repair(&error) {
                        return Err(self.errors);
                    }
                }
            }
        }
    }

    /// Notes an error and takes the value behind it away; `false` when there is none to take away.
    fn repair(&mut self, error: &serde_path_to_error::Error<toml::de::Error>) -> bool {
        let path: Key = error.path().iter().filter_map(map_key).collect();
        let message = error.inner().message();
        let Some((key, origin)) = self.origin(&path).map(|(key, by)| (key.clone(), by.to_string())) else {
            let shown = path.join(".");
            self.errors.push(if shown.is_empty() {
                message.to_string()
            } else {
                format!("{shown}: {message}")
            });
            return false;
        };
        if let Some(text) = self.texts.remove(&key) {
            self.put(&key, Some(Value::String(text)));
            return true;
        }
        self.errors.push(format!("{}: {message} ({origin})", path.join(".")));
        let default = lookup(&self.defaults, &key).cloned();
        self.put(&key, default);
        self.origins.remove(&key);
        true
    }

    /// The leaf set by somebody at, above or below `path`, and who it was.
    fn origin(&self, path: &[String]) -> Option<(&Key, &str)> {
        let above = (1..=path.len()).rev().find_map(|length| self.origins.get_key_value(&path[..length]));
        let below = || self.origins.range(path.to_vec()..).next().filter(|(key, _)| key.starts_with(path));
        let whole_tree = path.is_empty();
        above.or_else(|| if whole_tree { None } else { below() }).map(|(key, by)| (key, by.as_str()))
    }

    fn overlay(&mut self, path: &mut Key, table: Table, origin: &str) {
        for (name, value) in table {
            path.push(name);
            match value {
                Value::Table(inner) if !inner.is_empty() => self.overlay(path, inner, origin),
                leaf => self.set(path, leaf, origin),
            }
            path.pop();
        }
    }

    fn set(&mut self, key: &[String], value: Value, origin: &str) {
        if let (Value::Table(new), Some(Value::Table(_))) = (&value, lookup(&self.merged, key)) {
            // An inline table in a variable, or an empty section of a file: laid over, not put instead.
            return self.overlay(&mut key.to_vec(), new.clone(), origin);
        }
        self.origins.insert(key.to_vec(), origin.to_string());
        self.put(key, Some(value));
    }

    fn put(&mut self, key: &[String], value: Option<Value>) {
        let Some((last, parents)) = key.split_last() else { return };
        let mut table = &mut self.merged;
        for parent in parents {
            let inner = table.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new()); // a section where a value stood: the reader will complain
            }
            table = inner.as_table_mut().expect("made a table just above");
        }
        match value {
            Some(value) => table.insert(last.clone(), value),
            None => table.remove(last),
        };
    }

    /// Text where the default is text; a list from `a,b` where the default is a list; otherwise TOML if it is that.
    fn parse_variable(&self, key: &[String], text: &str) -> Value {
        let default = lookup(&self.defaults, key);
        if matches!(default, Some(Value::String(_))) {
            return Value::String(text.to_string());
        }
        let parsed = toml::from_str::<Table>(&format!("value = {text}"));
        match (parsed.ok().and_then(|mut table| table.remove("value")), default) {
            (Some(value @ Value::Array(_)), Some(Value::Array(_))) => value,
            (_, Some(Value::Array(_))) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(|item| Value::String(item.to_string())).collect())
            }
            (Some(value), _) => value,
            (None, _) => Value::String(text.to_string()),
        }
    }
}

fn lookup<'a>(table: &'a Table, key: &[String]) -> Option<&'a Value> {
    let (first, rest) = key.split_first()?;
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { lookup(value.as_table()?, rest) }
}

fn map_key(segment: &serde_path_to_error::Segment) -> Option<String> {
    match segment {
        serde_path_to_error::Segment::Map { key } => Some(key.clone()),
        serde_path_to_error::Segment::Enum { variant } => Some(variant.clone()),
        _ => None,
    }
}

/// Without the excerpt that toml's own message carries: the line may hold a secret.
fn syntax_error(shown: &str, text: &str, error: &toml::de::Error) -> String {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
    format!("{shown}, line {line}: {}", error.message())
}
