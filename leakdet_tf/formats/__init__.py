"""Changing a model's format but not its meaning: conversion, comparison, and the bundle that carries both."""
