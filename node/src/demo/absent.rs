//! What a binary without the demo has in its place.

pub use crate::component::Unheard as Arguments;

use crate::component::DEMO;
use crate::exit::Exit;

pub fn run(_args: Arguments) -> Exit {
    DEMO.refuse_command()
}
