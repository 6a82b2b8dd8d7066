//! Invented names: an adjective and a scientist, as people know them.

/// A name from random bytes; later attempts get a digit, like Docker's.
pub(super) fn invent(random: [u8; 32], attempt: usize) -> String {
    let pick = |list: &[&'static str], bytes: [u8; 2]| list[usize::from(u16::from_le_bytes(bytes)) % list.len()];
    let adjective = pick(ADJECTIVES, [random[0], random[1]]);
    let surname = pick(SURNAMES, [random[2], random[3]]);
    if attempt == 0 { format!("{adjective}_{surname}") } else { format!("{adjective}_{surname}{}", random[4] % 100) }
}

const ADJECTIVES: &[&str] = &[
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "clever", "cosy", "crisp", "daring", "eager", "early",
    "fair", "fleet", "fond", "frank", "free", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest",
    "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "neat",
    "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "ready", "robust", "serene",
    "sharp", "silent", "smart", "snappy", "solid", "spry", "steady", "sturdy", "sunny", "swift", "tidy", "tranquil",
    "trusty", "upbeat", "vivid", "warm", "wise", "witty", "zesty",
];

const SURNAMES: &[&str] = &[
    "abel",
    "agnesi",
    "ampere",
    "archimedes",
    "babbage",
    "bardeen",
    "bernoulli",
    "bohr",
    "boole",
    "born",
    "bose",
    "brahe",
    "cantor",
    "carson",
    "cauchy",
    "chandrasekhar",
    "copernicus",
    "curie",
    "dalton",
    "darwin",
    "descartes",
    "dirac",
    "einstein",
    "euclid",
    "euler",
    "faraday",
    "fermat",
    "fermi",
    "feynman",
    "franklin",
    "galileo",
    "galois",
    "gauss",
    "germain",
    "goedel",
    "goodall",
    "hamilton",
    "hawking",
    "heisenberg",
    "hilbert",
    "hopper",
    "hubble",
    "hypatia",
    "johnson",
    "joliot",
    "kepler",
    "knuth",
    "kovalevskaya",
    "lamarr",
    "leavitt",
    "leibniz",
    "lorentz",
    "lovelace",
    "maxwell",
    "mclean",
    "meitner",
    "mendel",
    "mirzakhani",
    "napier",
    "neumann",
    "newton",
    "noether",
    "pascal",
    "pasteur",
    "pauli",
    "planck",
    "ptolemy",
    "ramanujan",
    "riemann",
    "ritchie",
    "rubin",
    "sagan",
    "shannon",
    "tesla",
    "thompson",
    "torvalds",
    "turing",
    "volta",
    "wilson",
    "wu",
];

#[cfg(test)]
mod tests {
    use super::invent;
    use crate::model::ContainerName;

    #[test]
    fn invented_names_are_valid() {
        for byte in 0..=255 {
            ContainerName::parse(&invent([byte; 32], usize::from(byte))).unwrap();
        }
    }
}
