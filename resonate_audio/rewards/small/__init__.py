"""The small judges that come with the package."""
