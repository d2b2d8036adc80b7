"""The local REST of Confidential Containers, for programs written for it: off unless userdata has a section `coco`."""
