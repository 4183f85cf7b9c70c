//! What is generated of the chart and for it: `chart files` writes it (`make manifests`), `chart schemas FOLDER` writes what the API server of the tests
//! knows of every kind, with those of others that the chart uses, for kubeconform.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use ringside_e2e::apiserver::ApiServer;
use ringside_e2e::chart::{Helm, HelmVersion, generated, project, schemas};
use ringside_e2e::{definitions, others};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["files"] => files(),
        ["schemas", folder] => write_schemas(Path::new(folder)),
        _ => Err("write `chart files` or `chart schemas FOLDER`".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn files() -> Result<(), String> {
    // The chart's own files first: Helm renders what is there.
    for file in generated(None)? {
        write(&project().join(&file.path), &file.text)?;
    }
    let helm = Helm::find(HelmVersion::Three)?;
    for file in generated(Some(&helm))? {
        write(&project().join(&file.path), &file.text)?;
    }
    Ok(())
}

fn write_schemas(folder: &Path) -> Result<(), String> {
    // Not a given cluster, where the kinds of others are their own.
    let server = ApiServer::own("chart schemas").ok_or("there is no API server to ask")?;
    definitions::install(&server);
    others::install(&server);
    for (name, schema) in schemas(&server) {
        write(&folder.join(name), &schema.to_string())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let fail = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(fail)?;
    fs::write(path, text).map_err(fail)
}
