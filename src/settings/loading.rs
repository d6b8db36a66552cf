//! Puts the three layers together: the built-in defaults, the settings file over them, and the
//! environment over both.

use std::{collections::BTreeMap, path::Path};

use config::{Config, ConfigError, File, FileFormat, Value};
use toml::de::{DeTable, DeValue};

use super::{
    Settings,
    document::Document,
    environment::{self, Variables},
    files,
    keys::{self, KEYS},
    mistakes::{Mistake, Mistakes, Place, Wrong},
    sections,
    values::{Values, built_in},
};

/// What reading the settings brought to light.
#[derive(Debug)]
pub struct Inspection {
    /// The settings, with the default in place of each mistaken value; `None` when there is no
    /// file, or no TOML in it.
    pub settings: Option<Settings>,
    /// Everything that is wrong.
    pub mistakes: Mistakes,
    /// What is not wrong, and should be looked at all the same.
    pub warnings: Vec<Mistake>,
}

impl Inspection {
    /// The settings and the warnings, if nothing is wrong.
    pub fn sound(self) -> Result<(Settings, Vec<Mistake>), Mistakes> {
        match self.settings {
            Some(settings) if self.mistakes.is_empty() => Ok((settings, self.warnings)),
            _ => Err(self.mistakes),
        }
    }
}

/// Reads the settings file at `path` and, over it, the variables of `environment` that begin with
/// `HOOKBRIDGE__`. The error holds every mistake there is, not only the first.
///
/// A relative path among the settings starts from the directory of the settings file, also when it
/// comes from the environment. Certificates and keys must be there, and are not looked into.
pub fn load(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings, Mistakes> {
    let (settings, _) = read(path, environment, |_, _| {}).sound()?;
    Ok(settings)
}

/// Like [`load`], but certificates and keys are looked into as `run` needs them, and what is sound
/// can be looked at further although something else is wrong.
pub fn inspect(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Inspection {
    read(path, environment, files::look_into)
}

fn read(
    path: &Path,
    environment: impl Iterator<Item = (String, String)>,
    look_into: impl Fn(&Settings, &mut Values<'_>),
) -> Inspection {
    let Variables {
        known,
        mut mistakes,
    } = environment::variables(environment);
    let document = match Document::read(path, "the settings file") {
        Ok(document) => document,
        Err(mistake) => {
            mistakes.push(mistake);
            return unreadable(mistakes);
        }
    };
    let mut places = match document.table() {
        Ok(table) => places_in_file(&document, table.get_ref(), &mut mistakes),
        Err(faults) => {
            mistakes.extend(faults);
            return unreadable(mistakes);
        }
    };
    for (key, _) in KEYS {
        let name = environment::variable(key);
        if known.contains_key(&name) {
            places.insert((*key).to_owned(), Place::Variable(name));
        }
    }
    let environment = config::Environment::with_prefix("HOOKBRIDGE")
        .prefix_separator("__")
        .separator("__")
        .source(Some(known));
    let Ok(config) = merge(document.text(), environment) else {
        mistakes.push(Mistake {
            place: Place::File {
                path: path.to_owned(),
                line: None,
            },
            what: "the settings cannot be put together".to_owned(),
            remedy: "Compare the file with config/hookbridge.toml".to_owned(),
        });
        return unreadable(mistakes);
    };
    let mut values = Values::new(config, places, path);
    let settings = sections::read(&mut values);
    if let Some(settings) = &settings {
        look_into(settings, &mut values);
    }
    let (found, warnings) = values.into_findings();
    mistakes.extend(found);
    Inspection {
        settings,
        mistakes: mistakes.into(),
        warnings,
    }
}

fn unreadable(mistakes: Vec<Mistake>) -> Inspection {
    Inspection {
        settings: None,
        mistakes: mistakes.into(),
        warnings: Vec::new(),
    }
}

/// The three layers, the later over the earlier.
fn merge(file: &str, environment: config::Environment) -> Result<Config, ConfigError> {
    let mut builder = Config::builder();
    for (key, default) in KEYS {
        builder = builder.set_default(key, Value::new(None, built_in(*default)))?;
    }
    builder
        .add_source(File::from_str(file, FileFormat::Toml))
        .add_source(environment)
        .build()
}

/// Where the file gives each key. What stands where no key is known is a mistake.
fn places_in_file(
    document: &Document<'_>,
    table: &DeTable<'_>,
    mistakes: &mut Vec<Mistake>,
) -> BTreeMap<String, Place> {
    let mut places = BTreeMap::new();
    for (section, content) in table {
        let place = document.place(section.span().start);
        let name = section.get_ref();
        if !keys::is_section(name) {
            mistakes.push(keys::unknown_section(name).at(name, place));
            continue;
        }
        let DeValue::Table(content) = content.get_ref() else {
            let remedy = format!("Write [{name}], and its keys on the lines below");
            mistakes.push(Wrong::new("is a section, not a key", remedy).at(name, place));
            continue;
        };
        for (key, value) in content {
            let place = document.place(key.span().start);
            let path = format!("{name}.{}", key.get_ref());
            if keys::default(&path).is_none() {
                mistakes.push(keys::unknown_key(name, key.get_ref()).at(&path, place));
                continue;
            }
            if let DeValue::Array(elements) = value.get_ref() {
                for (index, element) in elements.iter().enumerate() {
                    let place = document.place(element.span().start);
                    places.insert(format!("{path}[{index}]"), place);
                    if let DeValue::Table(fields) = element.get_ref() {
                        for (field, _) in fields {
                            let place = document.place(field.span().start);
                            places.insert(format!("{path}[{index}].{}", field.get_ref()), place);
                        }
                    }
                }
            }
            places.insert(path, place);
        }
    }
    places
}
