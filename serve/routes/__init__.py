"""The addresses of the service, a module each group: `add(api, service)` puts its routes into the API.

search      POST /v1/search
batch       the same with many photos
verify      whether two photos show the same
faces       what is found in a photo
people      who was found, and what somebody says of them
duplicates  what is there more than once
bodies      forms of several photos
info        what is loaded, whether it is well, what is counted
images      images of the gallery, listed, shown and deleted
adding      POST /v1/images
admin       which version answers, changed while it runs; snapshots
legacy      the addresses from before /v1
page        the page's files
"""
