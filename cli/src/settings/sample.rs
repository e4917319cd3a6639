//! The documented sample of a settings file.
//!
//! Values are those of [`EXAMPLE`] with the defaults filled in, comments are the
//! documentation of the fields, both taken from the types themselves. What has no value by
//! default is shown commented out, with an example. The sample is valid settings.

use std::fmt;

use schemars::generate::SchemaSettings;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::file::File;
use super::yaml;

/// The sample.
///
/// # Errors
///
/// None in practice: everything it is made from is constant, and a test makes it.
pub(crate) fn sample() -> anyhow::Result<String> {
    let with_everything_in_place = |settings: &mut SchemaSettings| {
        settings.inline_subschemas = true;
    };
    let generator = SchemaSettings::draft2020_12().with(with_everything_in_place);
    let schema = generator.into_generator().into_root_schema_for::<File>();
    let root = schema.as_value();
    let example: File = yaml::parse(EXAMPLE).map_err(|problem| anyhow::anyhow!("{problem:?}"))?;
    let node: Node = serde_saphyr::from_str(&serde_saphyr::to_string(&example)?)?;
    let mut out = Printer { text: String::new() };
    out.comment(0, root);
    out.text.push('\n');
    out.fields(0, &node, root, "");
    Ok(out.text)
}

/// YAML with the order of its fields.
enum Node {
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    None,
    /// A number or a boolean, as it is written.
    Plain(String),
    Text(String),
}

struct Printer {
    text: String,
}

impl Printer {
    /// The fields of a map; `first` stands before the first of them instead of its
    /// indentation.
    fn fields(&mut self, indent: usize, node: &Node, schema: &Value, first: &str) {
        let Node::Map(fields) = node else { return };
        for (index, (name, value)) in fields.iter().enumerate() {
            let field = &schema["properties"][name];
            let is_first = index == 0 && !first.is_empty();
            if indent == 0 && index > 0 {
                self.text.push('\n');
            }
            if is_first {
                // The dash of a list stands before the field, so the comment comes first.
                self.comment(first.find('-').unwrap_or(indent), field);
                self.text.push_str(first);
            } else {
                self.comment(indent, field);
                self.pad(indent);
            }
            self.field(indent, name, value, field);
        }
    }

    fn field(&mut self, indent: usize, name: &str, value: &Node, schema: &Value) {
        let documented = schema["properties"].is_object();
        match value {
            Node::None => self.example(indent, name, &schema["examples"][0]),
            Node::Map(_) if documented => {
                self.text.push_str(&format!("{name}:\n"));
                self.fields(indent + STEP, value, schema, "");
            }
            Node::List(items) if items.iter().any(|item| matches!(item, Node::Map(_))) => {
                self.text.push_str(&format!("{name}:\n"));
                let first = format!("{}- ", " ".repeat(indent + STEP));
                for item in items {
                    self.fields(indent + 2 * STEP, item, &schema["items"], &first);
                }
            }
            Node::List(_) | Node::Map(_) | Node::Plain(_) | Node::Text(_) => {
                self.text.push_str(&format!("{name}: {}\n", inline(value)));
            }
        }
    }

    /// A field without a value, commented out; the indentation is already there.
    fn example(&mut self, indent: usize, name: &str, example: &Value) {
        let Some(fields) = example.as_object() else {
            let text = example.as_str().map_or_else(|| example.to_string(), quoted);
            self.text.push_str(&format!("# {name}: {text}\n"));
            return;
        };
        self.text.push_str(&format!("# {name}:\n"));
        for (name, value) in fields {
            self.pad(indent);
            let text = value.as_str().map_or_else(|| value.to_string(), quoted);
            self.text.push_str(&format!("#   {name}: {text}\n"));
        }
    }

    /// The documentation of a field, wrapped.
    fn comment(&mut self, indent: usize, schema: &Value) {
        let Some(text) = schema["description"].as_str() else { return };
        for paragraph in text.split("\n\n") {
            let mut line = String::new();
            for word in paragraph.split_whitespace() {
                if !line.is_empty() && indent + 2 + line.len() + 1 + word.len() > WIDTH {
                    self.comment_line(indent, &line);
                    line.clear();
                }
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            self.comment_line(indent, &line);
        }
    }

    fn comment_line(&mut self, indent: usize, line: &str) {
        self.pad(indent);
        self.text.push_str("# ");
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn pad(&mut self, indent: usize) {
        self.text.push_str(&" ".repeat(indent));
    }
}

/// A value on one line.
fn inline(node: &Node) -> String {
    match node {
        Node::None => "null".to_owned(),
        Node::Plain(text) => text.clone(),
        Node::Text(text) => quoted(text),
        Node::List(items) => {
            format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
        }
        Node::Map(fields) => {
            let field = |(name, value): &(String, Node)| format!("{name}: {}", inline(value));
            format!("{{{}}}", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
    }
}

/// Text as YAML, in double quotes unless it is plain without doubt.
fn quoted(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "._/:-=".contains(c);
    let starts = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.');
    let number = text.parse::<f64>().is_ok();
    let other = matches!(text, "true" | "false" | "null" | "yes" | "no" | "on" | "y" | "n");
    if starts && text.chars().all(good) && !text.ends_with(':') && !number && !other {
        return text.to_owned();
    }
    Value::from(text).to_string()
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Plain(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::None)
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = map.next_entry()? {
            fields.push(entry);
        }
        Ok(Node::Map(fields))
    }
}

/// What has no default, and one sidecar; every other value of the sample is a default.
const EXAMPLE: &str = "
cluster: aws-us-east
clusterset: demo
region: us-east-1
zone: us-east-1a
sidecars:
  - name: frontend
    namespace: shop
    serviceAccount: frontend
    labels: {app: frontend}
    address: 127.0.0.1
    ports: [9080]
    mesh: 127.0.0.1:15108
    outbound: 127.0.0.1:15001
    tcp: [{listen: 127.0.0.1:5432, service: db.shop.svc.clusterset.local, port: 5432}]
";

const STEP: usize = 2;
const WIDTH: usize = 88;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Settings;
    use super::*;

    #[test]
    fn the_sample_is_valid_and_says_the_same_as_the_example() {
        let text = sample().unwrap();
        let path = Path::new("/etc/isthmus/cluster.yaml");
        let settings = Settings::parse(&text, path).unwrap();
        assert_eq!(settings, Settings::parse(EXAMPLE, path).unwrap());
    }

    #[test]
    fn every_line_is_a_comment_a_field_or_empty_and_every_field_is_documented() {
        let text = sample().unwrap();
        let mut previous = "";
        for line in text.lines().map(str::trim_start) {
            assert!(line.len() <= WIDTH, "{line}");
            let field = !line.is_empty() && !line.starts_with('#');
            assert!(!field || previous.starts_with("# "), "{line} has no comment");
            previous = line;
        }
    }

    #[test]
    fn what_is_commented_out_is_valid_too() {
        let text = sample().unwrap();
        let mut lines = Vec::new();
        for line in text.lines() {
            // Prose never has a colon after its first word.
            let name = line.trim_start().strip_prefix("# ").and_then(|line| {
                let name = line.split_once(": ").map(|(name, _)| name);
                let name = name.or_else(|| line.strip_suffix(':'))?.trim_start();
                let is_field = name.starts_with(char::is_lowercase);
                (is_field && name.chars().all(char::is_alphanumeric)).then_some(name)
            });
            lines.push(if name.is_some() { line.replacen("# ", "", 1) } else { line.to_owned() });
        }
        let settings = Settings::parse(&lines.join("\n"), Path::new("/a/cluster.yaml")).unwrap();
        assert!(settings.ca.user_intermediate.is_some());
        assert!(settings.telemetry.otlp.is_some());
        assert_eq!(settings.sidecars[0].uid, Some(1000));
    }

    #[test]
    fn the_reference_in_the_documentation_is_the_sample() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cluster.yaml");
        let committed = std::fs::read_to_string(path).unwrap();
        let hint = "isthmus up --print-settings > docs/reference/cluster.yaml";
        assert!(committed == sample().unwrap(), "the file is out of date; run {hint}");
    }
}
