//! A writer of EROFS images: the index of a layer's tar.
