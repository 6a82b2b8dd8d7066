//! What one engine's network parts are called: all from its `--name`, so that engines side by side never meet.

/// The most bytes that an interface name has (`IFNAMSIZ` without the terminator).
const INTERFACE_NAME_MAX: usize = 15;

/// The names of one engine's interfaces and firewall table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    engine: String,
    bridge: String,
    table: String,
    veth_prefix: String,
    group: u32,
}

impl Names {
    /// The names of the engine called `engine`.
    pub fn of(engine: &str) -> Self {
        let hash = fnv(engine.as_bytes());
        Self {
            engine: engine.to_owned(),
            bridge: bridge_name(engine, hash),
            table: table_name(engine),
            veth_prefix: format!("veth{:04x}", hash & 0xffff),
            group: hash | 0x4000_0000,
        }
    }

    /// The engine's own name.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// The default bridge: the engine's name and a zero, `conex0`.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The nftables table.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The host's end of the `number`th pair.
    pub fn veth(&self, number: u32) -> String {
        format!("{}{:07x}", self.veth_prefix, number & 0x0fff_ffff)
    }

    /// The two ends of the pair through which calls come back that the host's own input rules have let in.
    pub(crate) fn gate(&self) -> [String; 2] {
        ["in", "out"].map(|end| format!("gate{:06x}{end}", self.group & 0x00ff_ffff))
    }

    /// All names of [`Names::veth`], in nft's way of writing it.
    pub(crate) fn any_host_end(&self) -> String {
        format!("{}*", self.veth_prefix)
    }

    /// Whether this is one of [`Names::veth`].
    pub(crate) fn is_host_end(&self, interface: &str) -> bool {
        interface.starts_with(&self.veth_prefix)
    }

    /// The interface with a routed network's gateway address.
    pub fn router(id: &str) -> String {
        format!("rt-{}", id.get(..12).unwrap_or(id))
    }

    /// The interface that stands for a cable where a network has none.
    pub fn dummy(id: &str) -> String {
        format!("dm-{}", id.get(..12).unwrap_or(id))
    }

    /// What the bridge's alias says, by which an engine knows its own bridge from a stranger's of the same name.
    pub fn alias(&self) -> String {
        format!("bridge of container engine {}", self.engine)
    }

    /// The bridge of a user's network with this id, as Docker calls it.
    pub fn user_bridge(id: &str) -> String {
        format!("br-{}", id.get(..12).unwrap_or(id))
    }

    /// The interface group that host ends are put in to be deleted together.
    pub(crate) fn group(&self) -> u32 {
        self.group
    }
}

fn bridge_name(engine: &str, hash: u32) -> String {
    let plain = engine.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if plain && !engine.is_empty() && engine.len() < INTERFACE_NAME_MAX && !engine.starts_with('.') {
        return format!("{engine}0");
    }
    let kept: String = engine.chars().filter(char::is_ascii_alphanumeric).take(5).collect();
    format!("{kept}-{hash:08x}0")
}

fn table_name(engine: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
    let name: String = engine.chars().map(plain).collect();
    if name.starts_with(|c: char| c.is_ascii_alphabetic()) { name } else { format!("engine-{name}") }
}

/// The 32-bit FNV-1a hash: short, stable over releases, and nothing secret hangs on it.
pub(crate) fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_engine_has_plain_names() {
        let names = Names::of("conex");
        assert_eq!((names.bridge(), names.table()), ("conex0", "conex"));
    }

    #[test]
    fn every_name_fits_an_interface() {
        for engine in ["a", "conex-test-1234", "conex-test-12345", "a very long name, indeed", "mañana", "", ".", "1"]
        {
            let names = Names::of(engine);
            assert!(names.bridge().len() <= INTERFACE_NAME_MAX, "{}", names.bridge());
            assert!(!names.bridge().contains(['/', ' ', ':']));
            assert_eq!(names.veth(u32::MAX).len(), INTERFACE_NAME_MAX);
            assert!(names.gate().iter().all(|name| name.len() <= INTERFACE_NAME_MAX));
            assert!(!names.table().is_empty());
        }
    }

    #[test]
    fn long_names_stay_apart() {
        let (one, two) = (Names::of("conex-test-0000000001"), Names::of("conex-test-0000000002"));
        assert_ne!(one.bridge(), two.bridge());
        assert_ne!(one.veth(1), two.veth(1));
        assert_ne!(one.group(), two.group());
    }
}
