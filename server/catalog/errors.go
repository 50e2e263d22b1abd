package catalog

import "carillon/server/push"

// The errors that all implementations answer with.

// ErrClosed returns the error of a call after Close.
func ErrClosed() error {
	return push.Errorf(push.KindClosed, "catalog_closed", "the catalog is closed")
}

// ErrProductExists returns the error of a product that is there already.
func ErrProductExists() error {
	return push.Errorf(push.KindConflict, "product_exists", "there is a product of that id")
}

// ErrProductNotFound returns the error of a product that is not there.
func ErrProductNotFound() error {
	return push.Errorf(push.KindNotFound, "product_not_found", "there is no product of that id")
}

// ErrKeyExists returns the error of a key that is, or was, there already.
func ErrKeyExists() error {
	return push.Errorf(push.KindConflict, "key_exists", "there is, or was, a key of that id")
}

// ErrKeyNotFound returns the error of a key that is not there.
func ErrKeyNotFound() error {
	return push.Errorf(push.KindNotFound, "key_not_found", "the product has no key of that id")
}

// ErrUnavailable returns the error of a call whose store did not answer, or whose context ended before it began.
func ErrUnavailable(cause error) error {
	return &push.Error{Kind: push.KindUnavailable, Code: "catalog_unavailable", Detail: "the catalog does not answer", Err: cause}
}
