"""`resonate demo`: a page of sounds, and one of before and after teaching."""
