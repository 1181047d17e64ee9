"""What is asked for as text, read for any samples: objectives, `classifier:3 + 0.5*style:a.png`, and conditions."""
