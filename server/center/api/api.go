// Package api holds what is generated from openapi.yaml: the frames of the handlers and the models of their answers, in a
// package for each listener. overlay.yaml says what is left out of the generation, and why.
package api

//go:generate go tool oapi-codegen -config public.yaml ../../../openapi.yaml
//go:generate go tool oapi-codegen -config admin.yaml ../../../openapi.yaml
