//! What `check` prints, whole.

use super::*;

fn check(config: &str, environment: &[(&str, &str)]) -> (bool, String) {
    let args = CheckArgs {
        config: ConfigArgs {
            config: config.into(),
        },
    };
    let pairs = environment.iter();
    let pairs = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut out = Vec::new();
    let mistaken = run(&args, pairs, &mut out).unwrap();
    (mistaken, String::from_utf8(out).unwrap())
}

#[test]
fn everything_that_is_wrong_is_printed_at_once() {
    let environment = [
        ("HOOKBRIDGE__BROKER__PREFETCH", "5"),
        ("HOOKBRIDGE__SOURCE__EXCHANGE", "amq.events"),
    ];
    let (mistaken, printed) = check("tests/check/hookbridge.toml", &environment);
    assert!(mistaken);
    assert!(!printed.contains("hunter2"));
    insta::assert_snapshot!(printed);
}

#[test]
fn the_shipped_files_are_sound() {
    let (mistaken, printed) = check("config/hookbridge.toml", &[]);
    assert_eq!(printed, "ok: 5 subscribers (0 enabled)\n");
    assert!(!mistaken);
}

#[test]
fn without_settings_the_subscribers_are_not_read() {
    let (mistaken, printed) = check("config/none.toml", &[]);
    assert!(mistaken);
    insta::assert_snapshot!(printed, @r"
    config/none.toml: the settings file does not exist. Make it, or name another
    1 mistake in 1 file; the subscribers were not read
    ");
}

#[test]
fn variables_of_subscribers_are_looked_up_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    std::fs::write(path.join("hookbridge.toml"), "").unwrap();
    std::fs::create_dir(path.join("subscribers")).unwrap();
    let text = "id = \"a\"\nscope = \"all\"\nevents = [\"*\"]\n[http]\nurl = \"https://a.example\"\n\
                authorization_env = \"A_TOKEN\"\n";
    std::fs::write(path.join("subscribers/a.toml"), text).unwrap();
    let config = path.join("hookbridge.toml");
    let config = config.to_str().unwrap();
    let (mistaken, printed) = check(config, &[("A_TOKEN", "Bearer token")]);
    assert_eq!(
        (mistaken, printed.as_str()),
        (false, "ok: 1 subscriber (1 enabled)\n")
    );
    assert!(check(config, &[]).0);
}
