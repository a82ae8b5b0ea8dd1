//! Which layers lie below one, by the layer database: what the driver writes down itself is compared with it.

use crate::engine::docker_objects::{Image, Layer, Mount, Store};

/// No image has more layers.
const MOST: usize = 1024;

/// What the layer database says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    /// The driver's names of them, top first; nothing for one that is there and has no name.
    pub ids: Vec<Option<String>>,
    /// Whether these are all.
    pub whole: bool,
}

impl Below {
    /// Returns what is below a layer of an image.
    pub fn layer(store: &Store, layer: &Layer) -> Self {
        let is_damaged = layer.problems.iter().any(|problem| problem.path.ends_with("parent"));
        let mut found = Self { ids: Vec::new(), whole: !is_damaged };
        found.down(store, layer.parent.as_deref());
        found
    }

    /// Returns what is below a container's own layer, or below the one between it and the image, by the driver's name for
    /// either.
    pub fn mount(store: &Store, mount: &Mount, id: &str, image: Option<&Image>) -> Self {
        let image = image.filter(|image| image.problems.is_empty());
        let top = image.and_then(|image| Some((image, image.layers.last()?)));
        let parent = mount.parent.as_deref().or_else(|| top.and_then(|(_, part)| part.chain.as_deref()));
        // An image may have no layer at all.
        let is_known = parent.is_some() || image.is_some_and(|image| image.layers.is_empty());
        let mut found = Self { ids: Vec::new(), whole: is_known };
        if mount.mount_id.as_deref() == Some(id) {
            found.ids.extend(mount.init_id.clone().map(Some));
        }
        found.down(store, parent);
        found
    }

    fn down(&mut self, store: &Store, from: Option<&str>) {
        let mut next = from;
        while let Some(chain) = next {
            let layer = store.layers.get(chain);
            let id = layer.and_then(|layer| layer.cache_id.clone());
            let is_damaged = layer.is_some_and(|layer| layer.problems.iter().any(|p| p.path.ends_with("parent")));
            self.whole &= id.is_some() && !is_damaged && self.ids.len() < MOST;
            self.ids.push(id);
            next = layer.and_then(|layer| layer.parent.as_deref()).filter(|_| self.ids.len() <= MOST);
        }
    }
}
