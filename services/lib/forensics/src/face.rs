//! Faces as they are found in a frame. Coordinates are pixels, x to the right, y down, origin at the top left.

/// A point in a frame, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Point {
    /// To the right.
    pub x: f32,
    /// Down.
    pub y: f32,
}

/// A box in a frame, in pixels; may reach beyond the frame's edge.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BoundingBox {
    /// Left edge.
    pub left: f32,
    /// Top edge.
    pub top: f32,
    /// Right edge.
    pub right: f32,
    /// Bottom edge.
    pub bottom: f32,
}

impl BoundingBox {
    /// Width in pixels, never negative.
    pub fn width(&self) -> f32 {
        (self.right - self.left).max(0.0)
    }

    /// Height in pixels, never negative.
    pub fn height(&self) -> f32 {
        (self.bottom - self.top).max(0.0)
    }

    /// Area in square pixels.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Intersection over union with `other`, in [0, 1].
    pub fn iou(&self, other: &Self) -> f32 {
        let overlap = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
        .area();
        let union = self.area() + other.area() - overlap;
        if union > 0.0 { overlap / union } else { 0.0 }
    }
}

/// A face found in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DetectedFace {
    /// Where it is.
    pub bounds: BoundingBox,
    /// Left eye, right eye, nose, left and right corner of the mouth, as seen in the picture.
    pub landmarks: [Point; 5],
    /// The detector's confidence in [0, 1].
    pub confidence: f32,
}

impl DetectedFace {
    /// The shorter side of the face's box, in pixels.
    pub fn size(&self) -> f32 {
        self.bounds.width().min(self.bounds.height())
    }
}

/// How well a face can be judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaceQuality {
    /// The shorter side of the face's box in the frame, in pixels.
    pub size: f32,
    /// Variance of the Laplacian of the crop's luminance; low is blurred.
    pub sharpness: f32,
}
