//! Crops onto the device, as the u8 they are: a quarter of the bytes of f32.

use forensics::CropBatch;
use tch::{Device, Kind, TchError, Tensor};

use crate::bundle::pixels_of;
use crate::shim::{CopyStream, Sent};

/// Sends batches to one device.
pub(crate) enum Upload {
    /// The CPU reads what lies there.
    Cpu,
    /// Through pinned memory on a stream of its own, so that the next batch travels while the device computes.
    Cuda(Box<Pinned>),
}

pub(crate) struct Pinned {
    device: Device,
    stream: CopyStream,
    /// Two, so that one is filled while the other travels.
    buffers: [Buffer; 2],
    next: usize,
}

#[derive(Default)]
struct Buffer {
    /// `[crops, 256, 256, 3]` u8 in pinned memory.
    pixels: Option<Tensor>,
    /// The last batch that left it, until it has arrived.
    sent: Option<Sent>,
}

impl Upload {
    pub(crate) fn new(device: Device) -> Result<Self, TchError> {
        let Device::Cuda(index) = device else { return Ok(Self::Cpu) };
        let stream = CopyStream::new(index)?;
        Ok(Self::Cuda(Box::new(Pinned { device, stream, buffers: Default::default(), next: 0 })))
    }

    /// `[n, 256, 256, 3]` u8 on the device; what is computed on it afterwards waits for it there, not here.
    pub(crate) fn send(&mut self, batch: &CropBatch) -> Result<Tensor, TchError> {
        match self {
            Self::Cpu => pixels_of(batch),
            Self::Cuda(pinned) => pinned.send(&pixels_of(batch)?),
        }
    }
}

impl Pinned {
    fn send(&mut self, pixels: &Tensor) -> Result<Tensor, TchError> {
        let buffer = &mut self.buffers[self.next];
        self.next = 1 - self.next;
        // The batch before the last one left from here: overwritten only once it has arrived.
        if let Some(sent) = buffer.sent.take() {
            sent.wait()?;
        }
        let count = pixels.size()[0];
        let room = match buffer.pixels.take() {
            Some(room) if room.size()[0] >= count => room,
            _ => Tensor::f_zeros(pixels.size(), (Kind::Uint8, Device::Cpu))?.f_pin_memory(self.device)?,
        };
        let mut part = room.f_narrow(0, 0, count)?;
        part.f_copy_(pixels)?;
        let (on_device, sent) = self.stream.send(&part)?;
        buffer.sent = Some(sent);
        buffer.pixels = Some(room);
        Ok(on_device)
    }
}
