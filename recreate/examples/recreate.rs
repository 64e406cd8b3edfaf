//! The library by hand, one step a call; the test suite `migration` drives it on two hosts.
//!
//! ```sh
//! recreate describe web > recipe        # at the source
//! recreate export recipe > image.tar
//! recreate check recipe web             # at the destination
//! recreate import recipe < image.tar
//! recreate create recipe web > created
//! recreate undo created
//! ```
//! `FASTMIG_CREATE` names a file with the `[create]` settings, as JSON.

use std::error::Error;
use std::io::{stdin, stdout, Write};
use std::sync::Arc;

use fastmig_engine::{state, Config};
use fastmig_recreate::{Recipe, Recreator};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() {
    if let Err(error) = run() {
        eprintln!("recreate: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let config = Arc::new(Config::load()?);
    let this = Recreator::new(config.clone());
    match words[..] {
        ["describe", container] => {
            let recipe = this.describe(&state::find(&config, container, None)?)?;
            Ok(stdout().write_all(&recipe.to_bytes()?)?)
        }
        ["export", file] => Ok(this.export_image(&recipe(file)?, &mut stdout()).map(drop)?),
        ["has", file] => say(&this.has_image(&recipe(file)?)?.to_string()),
        ["same", file, container] => {
            say(&this.same_image(&recipe(file)?, &state::find(&config, container, None)?)?.to_string())
        }
        ["check", file, name] => Ok(this.check(&recipe(file)?, name)?),
        ["import", file] => Ok(this.import_image(&recipe(file)?, &mut stdin().lock())?),
        ["create", file, name] => say(&serde_json::to_string(&this.create(&recipe(file)?, name)?)?),
        ["undo", file] => Ok(this.undo(&serde_json::from_slice(&std::fs::read(file)?)?)?),
        _ => Err("describe NAME, export RECIPE, has RECIPE, same RECIPE NAME, check RECIPE NAME, import RECIPE, create RECIPE NAME or undo CREATED".into()),
    }
}

fn recipe(file: &str) -> Result<Recipe> {
    Ok(Recipe::parse(&std::fs::read(file)?)?)
}

fn say(text: &str) -> Result<()> {
    Ok(writeln!(stdout(), "{text}")?)
}
