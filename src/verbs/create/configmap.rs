//! `fairlead create configmap`, and the flags by which data is given on the command line.

use std::{fs, path::Path};

use anyhow::{Context, bail};
use serde_json::json;

use crate::verbs::submit::SubmitArgs;

/// Create a ConfigMap from files and literals
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fairlead create configmap settings --from-literal=colour=blue
  fairlead create configmap site --from-file=index.html --from-file=conf=/etc/site.conf
  fairlead create configmap env --from-env-file=.env")]
pub struct CreateConfigMap {
    /// Name of the ConfigMap
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    submit: SubmitArgs,
}

/// Where data comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DataArgs {
    /// A key and its value: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub from_literal: Vec<String>,
    /// A file under its own name or under KEY, or all files of a directory
    #[arg(long, value_name = "[KEY=]FILE")]
    pub from_file: Vec<String>,
    /// A file of KEY=VALUE lines
    #[arg(long, value_name = "FILE")]
    pub from_env_file: Vec<String>,
}

impl DataArgs {
    /// All keys with their contents. A key that is given twice is an error.
    pub fn read(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut data: Vec<(String, Vec<u8>)> = Vec::new();
        let mut add = |key: &str, content: Vec<u8>| {
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
                bail!("\"{key}\" is not a valid key: letters, digits, '-', '_' and '.' make one");
            }
            if data.iter().any(|(known, _)| known == key) {
                bail!("the key \"{key}\" is given twice");
            }
            data.push((key.to_owned(), content));
            Ok(())
        };
        for literal in &self.from_literal {
            let (key, value) =
                literal.split_once('=').with_context(|| format!("--from-literal '{literal}' is not KEY=VALUE"))?;
            add(key, value.as_bytes().to_vec())?;
        }
        for file in &self.from_file {
            let (key, path) = match file.split_once('=') {
                Some((key, path)) => (Some(key), Path::new(path)),
                None => (None, Path::new(file)),
            };
            for (name, path) in files(path)? {
                let content = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                add(key.unwrap_or(&name), content)?;
            }
        }
        for file in &self.from_env_file {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
            for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (key, value) =
                    line.split_once('=').with_context(|| format!("{file}: '{line}' is not KEY=VALUE"))?;
                add(key, value.as_bytes().to_vec())?;
            }
        }
        Ok(data)
    }
}

fn files(path: &Path) -> anyhow::Result<Vec<(String, std::path::PathBuf)>> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !path.is_dir() {
        return Ok(vec![(name(path), path.to_owned())]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let path = entry?.path();
        if path.is_file() {
            found.push((name(&path), path));
        }
    }
    found.sort();
    Ok(found)
}

impl CreateConfigMap {
    /// Runs the verb to its end.
    pub async fn run(self) -> anyhow::Result<()> {
        let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self.name}});
        for (key, content) in self.data.read()? {
            match String::from_utf8(content) {
                Ok(text) => object["data"][key] = json!(text),
                Err(binary) => {
                    object["binaryData"][key] = serde_json::to_value(k8s_openapi::ByteString(binary.into_bytes()))?;
                }
            }
        }
        let cluster = self.submit.connect().await?;
        self.submit.submit(&cluster, object, "created").await
    }
}
